package backends

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStampsGrowWhateverTheClockSays(t *testing.T) {
	far := Stamp("7fffffffffffffff0000000000000000")
	for _, after := range []Stamp{"", "0000000000000001ffffffffffffffff", far, "7fffffffffffffffffffffffffffffff", NewStamp(""), NewStamp(NewStamp(""))} {
		got := NewStamp(after)
		if got <= after || !IsStamp(string(got)) {
			t.Errorf("after %q: %q", after, got)
		}
	}
	if a, b := NewStamp(""), NewStamp(""); a == b {
		t.Errorf("%q twice", a)
	}
	for _, name := range []string{"", NullVersion, strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("A", 32), "../" + strings.Repeat("0", 29)} {
		if IsStamp(name) {
			t.Errorf("%q is a stamp", name)
		}
	}
}

// history is a VersionKeys of keys with so many versions.
type history map[string][]VersionRef

func (h history) Ceil(from string) (string, bool, error) {
	var keys []string
	for key := range h {
		if key >= from {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return "", false, nil
	}
	return slices.Min(keys), true, nil
}

func (h history) Versions(key string) ([]VersionRef, error) { return h[key], nil }

func (h history) Version(key string, ref VersionRef) (VersionInfo, error) {
	if ref.Stamp == "gone" {
		return VersionInfo{}, ErrVersionNotFound
	}
	return VersionInfo{Info: Info{Key: key, Version: ref.Version, TagCount: 3, Attributes: Attributes{ContentType: "x"}}}, nil
}

// randomHistory has null versions at any place; those at the end may have no stamp.
func randomHistory(r *rand.Rand) history {
	h := history{}
	for _, key := range []string{"a", "a/b", "a/b/c", "a/c", "a-b", "b", "b/", "b/b", "ü/ü"} {
		n := r.IntN(5)
		for i := range n {
			stamp := Stamp(fmt.Sprintf("%032x", 100-i))
			ref := VersionRef{string(stamp), stamp}
			if null := r.IntN(3) == 0; null && !slices.ContainsFunc(h[key], func(v VersionRef) bool { return v.Version == NullVersion }) {
				if ref.Version = NullVersion; i == n-1 && r.IntN(2) == 0 {
					ref.Stamp = ""
				}
			}
			h[key] = append(h[key], ref)
		}
	}
	return h
}

func (h history) rows(prefix, delimiter string) (rows []string) {
	for from := prefix; ; {
		key, ok, _ := h.Ceil(from)
		if !ok || !strings.HasPrefix(key, prefix) {
			return rows
		}
		from = key + "\x00"
		common, rolled := RollUp(key, prefix, delimiter)
		if rolled && !slices.Contains(rows, common) {
			rows = append(rows, common)
		}
		for i, v := range h[key] {
			if !rolled {
				rows = append(rows, fmt.Sprint(key, " ", v.Version, " ", i == 0))
			}
		}
	}
}

// page lists one page and checks it.
func (h history) page(t *testing.T, o *ListVersionsOptions) (rows []string, more bool) {
	t.Helper()
	page, err := PageVersions(t.Context(), h, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range page.Versions {
		rows = append(rows, fmt.Sprint(v.Key, " ", v.Version, " ", v.Latest))
		if v.TagCount != 0 || v.Attributes.ContentType != "" {
			t.Fatalf("a row has attributes: %+v", v)
		}
	}
	if rows = append(rows, page.Prefixes...); page.Truncated && len(rows) != o.Limit || !page.Truncated && page.NextKey != "" {
		t.Fatalf("%+v: %d rows, %+v", o, len(rows), page)
	}
	o.KeyMarker, o.VersionMarker = page.NextKey, page.NextVersionMark
	return rows, page.Truncated
}

func TestPagesOfVersionsAreThePiecesOfTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		h := randomHistory(r)
		for key, refs := range h {
			if len(refs) == 0 {
				delete(h, key)
			}
		}
		o := ListVersionsOptions{
			Prefix: []string{"", "a", "a/", "b/"}[r.IntN(4)], Delimiter: []string{"", "/", "b"}[r.IntN(3)], Limit: 1 + r.IntN(6),
		}
		all, want := []string{}, h.rows(o.Prefix, o.Delimiter)
		for more := true; more; {
			var rows []string
			rows, more = h.page(t, &o)
			all = append(all, rows...)
		}
		slices.Sort(all)
		slices.Sort(want)
		if !slices.Equal(all, want) {
			t.Fatalf("%+v of %v: got %q, want %q", o, h, all, want)
		}
	}
}

// TestAPageOfVersionsGoesOnWhereWhatItsMarkersNameHasGone deletes each page when it
// has been listed, as who empties a bucket does.
func TestAPageOfVersionsGoesOnWhereWhatItsMarkersNameHasGone(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		h := randomHistory(r)
		want, got := len(h.rows("", "")), 0
		o := ListVersionsOptions{Limit: 1 + r.IntN(4)}
		for more := true; more; {
			var rows []string
			rows, more = h.page(t, &o)
			got += len(rows)
			for _, row := range rows {
				key, version, _ := strings.Cut(row[:strings.LastIndex(row, " ")], " ")
				h[key] = slices.DeleteFunc(slices.Clone(h[key]), func(v VersionRef) bool { return v.Version == version })
			}
		}
		if got != want || len(h.rows("", "")) != 0 {
			t.Fatalf("%d of %d versions listed, left: %q", got, want, h.rows("", ""))
		}
	}
}

func TestMarkersNameVersionsThatAreThere(t *testing.T) {
	h := history{"a": {{"3", "3"}, {NullVersion, "2"}, {"1", "1"}}, "b": {{"5", "5"}, {"gone", "gone"}}}
	for _, c := range []struct {
		key, version string
		want         string
	}{
		{"", "", "a 3 true,a null false,a 1 false,b 5 true"},
		{"a", "", "b 5 true"},
		{"a", "3", "a null false,a 1 false,b 5 true"},
		{"a", NullVersion, "a 1 false,b 5 true"},
		{"a", "2", "a 1 false,b 5 true"},
		{"a", "1", "b 5 true"},
		{"b", NullVersion, ""},
		{"A", "3", "a 3 true,a null false,a 1 false,b 5 true"},
	} {
		rows, _ := h.page(t, &ListVersionsOptions{KeyMarker: c.key, VersionMarker: c.version})
		if got := strings.Join(rows, ","); got != c.want {
			t.Errorf("above %q, %q: got %s, want %s", c.key, c.version, got, c.want)
		}
	}
}

func TestADeleteIsHeldUpByWhatLocksAVersion(t *testing.T) {
	now := time.Now()
	before, after := now.Add(-time.Second), now.Add(time.Second)
	for _, c := range []struct {
		lock   Lock
		bypass bool
		locked bool
	}{
		{Lock{}, false, false},
		{Lock{Hold: true}, false, true},
		{Lock{Hold: true}, true, true},
		{Lock{Mode: Governance, Until: after}, false, true},
		{Lock{Mode: Governance, Until: after}, true, false},
		{Lock{Mode: Governance, Until: before}, false, false},
		{Lock{Mode: Governance, Until: now}, false, false},
		{Lock{Mode: Compliance, Until: after}, true, true},
		{Lock{Mode: Compliance, Until: before}, false, false},
		{Lock{Mode: Governance, Until: after, Hold: true}, true, true},
	} {
		if err := c.lock.CheckDelete(now, c.bypass); errors.Is(err, ErrLocked) != c.locked || !c.locked && err != nil {
			t.Errorf("%+v, bypass %v: %v", c.lock, c.bypass, err)
		}
	}
}

func TestRetentionsGrowAndShrinkAsS3Has(t *testing.T) {
	now := time.Now()
	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	g := func(n int) Lock { return Lock{Mode: Governance, Until: hour(n), Hold: true} }
	c := func(n int) Lock { return Lock{Mode: Compliance, Until: hour(n), Hold: true} }
	none := Lock{Hold: true}
	for _, s := range []struct {
		from, to Lock
		bypass   bool
		locked   bool
	}{
		{none, g(1), false, false},
		{none, c(1), false, false},
		{none, none, false, false},
		{g(1), g(1), false, false},
		{g(1), g(2), false, false},
		{g(2), g(1), false, true},
		{g(2), g(1), true, false},
		{g(2), none, false, true},
		{g(2), none, true, false},
		{g(1), c(2), false, true},
		{g(1), c(2), true, false},
		{g(-1), none, false, false},
		{c(1), c(2), false, false},
		{c(2), c(1), true, true},
		{c(2), g(9), true, true},
		{c(2), none, true, true},
		{c(-1), none, false, false},
	} {
		got, err := s.from.Retain(s.to.Mode, s.to.Until, now, s.bypass)
		want := s.to
		if s.locked {
			want = s.from
		}
		if errors.Is(err, ErrLocked) != s.locked || !s.locked && err != nil || got != want {
			t.Errorf("%+v to %+v, bypass %v: %+v, %v", s.from, s.to, s.bypass, got, err)
		}
	}
	for _, bad := range []Lock{{Mode: Governance}, {Until: now}, {Mode: "x", Until: now}} {
		if _, err := none.Retain(bad.Mode, bad.Until, now, true); !errors.Is(err, ErrInvalidName) || bad.Check() == nil {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestTheDefaultRetentionIsForThoseWithoutOne(t *testing.T) {
	now := time.Date(2024, 2, 28, 1, 2, 3, 999, time.UTC)
	own := Lock{Mode: Compliance, Until: now.Add(time.Hour)}
	days := LockConfig{Enabled: true, Mode: Governance, Days: 2}
	for _, c := range []struct {
		config     LockConfig
		lock, want Lock
		err        error
	}{
		{LockConfig{}, Lock{}, Lock{}, nil},
		{LockConfig{}, own, own, ErrNoLock},
		{LockConfig{}, Lock{Hold: true}, Lock{Hold: true}, ErrNoLock},
		{LockConfig{Enabled: true}, Lock{}, Lock{}, nil},
		{LockConfig{Enabled: true}, own, own, nil},
		{days, Lock{}, Lock{Mode: Governance, Until: time.Date(2024, 3, 1, 1, 2, 3, 0, time.UTC)}, nil},
		{days, Lock{Hold: true}, Lock{Mode: Governance, Until: time.Date(2024, 3, 1, 1, 2, 3, 0, time.UTC), Hold: true}, nil},
		{days, own, own, nil},
		{LockConfig{Enabled: true, Mode: Compliance, Years: 1}, Lock{}, Lock{Mode: Compliance, Until: time.Date(2025, 2, 28, 1, 2, 3, 0, time.UTC)}, nil},
	} {
		if got, err := c.config.Apply(c.lock, now); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%+v of %+v: %+v, %v; want %+v, %v", c.config, c.lock, got, err, c.want, c.err)
		}
	}
}

func TestLocksWantVersionsAndStay(t *testing.T) {
	lock := LockConfig{Enabled: true}
	for v, want := range map[Versioning]error{VersioningOff: ErrBucketState, VersioningSuspended: ErrBucketState, VersioningEnabled: nil} {
		if err := lock.CheckSet(v); !errors.Is(err, want) {
			t.Errorf("a lock where versioning is %q: %v", v, err)
		}
		if err := lock.CheckVersioning(v); !errors.Is(err, want) {
			t.Errorf("versioning %q of a bucket with a lock: %v", v, err)
		}
	}
	if err := (LockConfig{}).CheckSet(VersioningEnabled); !errors.Is(err, ErrBucketState) {
		t.Errorf("taking a lock away: %v", err)
	}
	for v, want := range map[Versioning]error{VersioningOff: ErrBucketState, VersioningSuspended: nil, VersioningEnabled: nil, "other": ErrBucketState} {
		if err := (LockConfig{}).CheckVersioning(v); !errors.Is(err, want) {
			t.Errorf("versioning %q: %v", v, err)
		}
	}
	for _, bad := range []LockConfig{
		{Enabled: true, Mode: Governance},
		{Enabled: true, Days: 1},
		{Enabled: true, Mode: Governance, Days: 1, Years: 1},
		{Enabled: true, Mode: Governance, Days: -1},
		{Enabled: true, Mode: Governance, Years: -1},
		{Enabled: true, Mode: "x", Days: 1},
		{Mode: Governance, Days: 1},
	} {
		if err := bad.CheckSet(VersioningEnabled); !errors.Is(err, ErrInvalidName) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestTagsAreThoseThatS3Takes(t *testing.T) {
	full := Tags{}
	for i := range MaxTags {
		full[fmt.Sprint(i)] = ""
	}
	over := Tags{"one more": ""}
	for name := range full {
		over[name] = ""
	}
	for name, c := range map[string]struct {
		tags Tags
		want error
	}{
		"none": {nil, nil}, "as many as may be": {full, nil}, "one more": {over, ErrTooLarge},
		"the longest":  {Tags{strings.Repeat("ü", 128): strings.Repeat("ü", 256)}, nil},
		"a long name":  {Tags{strings.Repeat("n", 129): ""}, ErrTooLarge},
		"a long value": {Tags{"n": strings.Repeat("v", 257)}, ErrTooLarge},
		"no name":      {Tags{"": "v"}, ErrInvalidName},
		"no text":      {Tags{"n": "\xff"}, ErrInvalidName},
	} {
		if err := (Attributes{Tags: c.tags}).Check(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzWithin compares Within with Clip: what lies within is never cut.
func FuzzWithin(f *testing.F) {
	f.Add(int64(0), int64(10), int64(10))
	f.Add(int64(5), int64(6), int64(10))
	f.Add(int64(-11), int64(0), int64(10))
	f.Fuzz(func(t *testing.T, offset, length, size int64) {
		if size < 0 || offset < -1<<62 {
			return
		}
		r := Range{offset, length}
		clipped, clipErr := r.Clip(size)
		got, err := r.Within(size)
		cut := offset < -size || offset >= 0 && length > 0 && clipErr == nil && clipped.Length != length
		var re *RangeError
		if (err != nil) != (clipErr != nil || cut) || err != nil && !errors.As(err, &re) || err == nil && got != clipped {
			t.Errorf("%+v of %d: %+v, %v; clipped %+v, %v", r, size, got, err, clipped, clipErr)
		}
	})
}

func TestNoRangeIsAllOfTheObject(t *testing.T) {
	var none *Range
	for _, size := range []int64{0, 1, 100} {
		if got, err := none.Within(size); err != nil || got != (Range{0, size}) {
			t.Errorf("of %d: %+v, %v", size, got, err)
		}
	}
}
