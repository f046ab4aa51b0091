package cloud

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"chatelaine/backends"
)

// pagesOf is a service that has these names in order, and pages of any length. Its tokens
// are indices. Names that end in a slash are prefixes.
func pagesOf(r *rand.Rand, names []string) Listing {
	fetch := func(_ context.Context, at Position, missing int) (rows []Row, next Position, err error) {
		from, _ := slices.BinarySearch(names, at.Start)
		if at.Token != "" {
			if from, err = strconv.Atoi(at.Token); err != nil {
				return nil, Position{}, err
			}
		}
		to := min(from+r.IntN(missing+3), len(names))
		for _, name := range names[from:to] {
			row := Row{Name: name}
			if name[len(name)-1] != '/' {
				row.Info = &backends.Info{Key: name}
			}
			rows = append(rows, row)
		}
		if to < len(names) {
			next.Token = strconv.Itoa(to)
		}
		return rows, next, nil
	}
	if r.IntN(2) == 0 {
		return Listing{Fetch: fetch}
	}
	return Listing{Fetch: fetch, Reopen: func(at Position) Position { return Position{Start: at.After, After: at.After} }}
}

func TestPagesAreThePiecesOfTheWhole(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		names := make([]string, r.IntN(20))
		for i := range names {
			names[i] = fmt.Sprintf("%03d%s", i, []string{"", "/"}[r.IntN(2)])
		}
		l, limit, got := pagesOf(r, names), 1+r.IntN(7), []string(nil)
		after := fmt.Sprintf("%03d", r.IntN(20)-1)
		for at := (Position{After: after}); ; {
			page, err := l.Page(t.Context(), at, limit)
			if err != nil {
				t.Fatal(err)
			}
			var rows []string
			for _, e := range page.Entries {
				rows = append(rows, e.Key)
			}
			rows = append(rows, page.Prefixes...)
			if slices.Sort(rows); len(rows) > limit || page.Truncated && len(rows) < limit {
				t.Fatalf("%d rows of %d, truncated %v", len(rows), limit, page.Truncated)
			}
			if got = append(got, rows...); !page.Truncated {
				break
			}
			if at, err = ParsePosition(page.Token); err != nil {
				t.Fatal(err)
			}
		}
		want := slices.DeleteFunc(names, func(name string) bool { return name <= after })
		if !slices.Equal(got, want) {
			t.Fatalf("pages of %d above %q: got %q, want %q", limit, after, got, want)
		}
	}
}

func TestAPageEndsWithTheServicesError(t *testing.T) {
	want := errors.New("no more")
	l := Listing{Fetch: func(context.Context, Position, int) ([]Row, Position, error) { return nil, Position{}, want }}
	if _, err := l.Page(t.Context(), Position{}, 1); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

func TestTokensOfOthersAreRefused(t *testing.T) {
	for _, token := range []string{"?", "bm90IEpTT04", "W10", "eyJ0IjoxfQ"} {
		if _, err := ParsePosition(token); !errors.Is(err, backends.ErrInvalidName) {
			t.Errorf("%q: %v, want ErrInvalidName", token, err)
		}
	}
}
