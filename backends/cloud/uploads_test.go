package cloud

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/backends"
)

func TestUploadIDsSortByTimeAndAreTheirOwn(t *testing.T) {
	now := time.Now()
	a, b, c := NewUploadID(now), NewUploadID(now), NewUploadID(now.Add(1))
	if a == b || max(a, b) >= c {
		t.Errorf("got %s, %s, %s", a, b, c)
	}
	for _, id := range []string{a, b, c} {
		if err := CheckUploadID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"", a[1:], a + "00", strings.ToUpper("abcdef") + a[6:], "../" + a[3:], a[:31] + "g"} {
		if err := CheckUploadID(id); !errors.Is(err, backends.ErrUploadNotFound) {
			t.Errorf("%q: %v, want ErrUploadNotFound", id, err)
		}
	}
}

func TestKeysComeBackFromTheirUploads(t *testing.T) {
	for _, key := range []string{"a", "ü/\x00\xff", strings.Repeat("k", 1024)} {
		if got := DecodeKey(EncodeKey(key)); got != key {
			t.Errorf("got %q, want %q", got, key)
		}
	}
	if got := DecodeKey("?"); got != "" {
		t.Errorf("got %q", got)
	}
}

// uploadInMemory is one upload. Parts are 5 MiB.
type uploadInMemory struct {
	ended bool
	parts map[int]backends.Part
}

func (u *uploadInMemory) uploads() Uploads {
	return Uploads{
		Find: func(context.Context, backends.UploadID) error {
			if u.ended {
				return backends.ErrUploadNotFound
			}
			return nil
		},
		Parts: func(context.Context, backends.UploadID) ([]backends.Part, error) {
			return slices.Collect(maps.Values(u.parts)), nil
		},
		Remove: func(_ context.Context, _ backends.UploadID, number int) error {
			delete(u.parts, number)
			return nil
		},
	}
}

func (u *uploadInMemory) put(t *testing.T, number int, etag string, between func()) error {
	part, err := u.uploads().NewPart(t.Context(), backends.UploadID{}, number, func() (backends.Part, error) {
		between()
		u.parts[number] = backends.Part{Number: number, ETag: etag, Size: backends.MinPart}
		return backends.Part{ETag: etag, Size: backends.MinPart}, nil
	})
	if err == nil && part != u.parts[number] {
		t.Errorf("got %+v, want %+v", part, u.parts[number])
	}
	return err
}

func TestAPartDoesNotOutliveItsUpload(t *testing.T) {
	u := &uploadInMemory{parts: map[int]backends.Part{}}
	if err := u.put(t, 1, "a", func() {}); err != nil {
		t.Fatal(err)
	}
	if err := u.put(t, 0, "a", func() {}); !errors.Is(err, backends.ErrInvalidPart) {
		t.Errorf("number 0: %v", err)
	}
	if err := u.put(t, 2, "b", func() { u.ended = true }); !errors.Is(err, backends.ErrUploadNotFound) || len(u.parts) != 1 {
		t.Errorf("an upload that ends in between: %v, parts %v", err, u.parts)
	}
	if err := u.put(t, 3, "c", func() { t.Error("a part is made") }); !errors.Is(err, backends.ErrUploadNotFound) {
		t.Errorf("an upload that has ended: %v", err)
	}
}

func TestAFailedCompleteIsBlamedOnWhatChanged(t *testing.T) {
	u := &uploadInMemory{parts: map[int]backends.Part{}}
	for number, etag := range []string{"a", "b"} {
		if err := u.put(t, number+1, etag, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	named, err := u.uploads().Named(t.Context(), backends.UploadID{}, []backends.Part{{Number: 1, ETag: "a"}, {Number: 2, ETag: "b"}})
	if err != nil || len(named) != 2 || named[1].Size != backends.MinPart {
		t.Fatalf("%+v, %v", named, err)
	}
	blamed := func(want error) {
		t.Helper()
		if got := u.uploads().Blame(t.Context(), backends.UploadID{}, named, backends.ErrPrecondition); !errors.Is(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	blamed(backends.ErrPrecondition)
	u.parts[2] = backends.Part{Number: 2, ETag: "other"}
	blamed(backends.ErrInvalidPart)
	u.ended = true
	blamed(backends.ErrUploadNotFound)
	if err := u.uploads().Blame(t.Context(), backends.UploadID{}, named, nil); err != nil {
		t.Errorf("a success: %v", err)
	}
}
