package gcsstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/iterator"

	"chatelaine/backends"
	"chatelaine/backends/gcsstore"
)

// versioned is a store whose bucket has versions, with what stands between.
func versioned(t *testing.T, v backends.Versioning) (*gcsstore.Store, *between, backends.ObjectID) {
	t.Helper()
	s, b, id := faulty(t)
	if err := s.SetVersioning(t.Context(), id.Bucket, v); err != nil {
		t.Fatal(err)
	}
	return s, b, id
}

func put(t *testing.T, s *gcsstore.Store, id backends.ObjectID, body string) backends.Written {
	t.Helper()
	w, err := s.Put(t.Context(), id, text(body), nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func remove(t *testing.T, s *gcsstore.Store, id backends.ObjectID) backends.Deleted {
	t.Helper()
	d, err := s.Delete(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func version(id backends.ObjectID, name string) backends.ObjectID {
	id.Version = name
	return id
}

// rows are the versions of a bucket as "key version", with "-" behind markers.
func rows(t *testing.T, s *gcsstore.Store, bucket string) (rows []string) {
	t.Helper()
	for opts := (backends.ListVersionsOptions{}); ; {
		page, err := s.ListVersions(t.Context(), bucket, &opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Versions {
			row := v.Key + " " + v.Version
			if v.Marker {
				row += "-"
			}
			rows = append(rows, row)
		}
		if !page.Truncated {
			return rows
		}
		opts.KeyMarker, opts.VersionMarker = page.NextKey, page.NextVersionMark
	}
}

func listed(t *testing.T, s *gcsstore.Store, bucket string, want ...string) {
	t.Helper()
	if got := rows(t, s, bucket); !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

// generations counts all that the service has below a prefix.
func generations(t *testing.T, client *storage.Client, prefix string) (n int) {
	t.Helper()
	for it := client.Bucket("bucket").Objects(t.Context(), &storage.Query{Prefix: prefix, Versions: true}); ; n++ {
		if _, err := it.Next(); errors.Is(err, iterator.Done) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// another is a gateway more.
func another(t *testing.T, b *between) *gcsstore.Store {
	t.Helper()
	s := open(t, gcsstore.Config{Project: "project-1", Location: "EU", Endpoint: b.url})
	s.Hasten()
	return s
}

func TestAGatewayThatKnowsTheOldStateHasForgottenItWhenTheNewOneIsAcknowledged(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	other := another(t, b)
	for round, v := range []backends.Versioning{backends.VersioningEnabled, backends.VersioningSuspended, backends.VersioningEnabled} {
		put(t, other, id, "it knows the state")
		if err := s.SetVersioning(t.Context(), id.Bucket, v); err != nil {
			t.Fatal(err)
		}
		w := put(t, other, id, fmt.Sprint(round))
		if null := w.Version == "null"; null != (v == backends.VersioningSuspended) || w.Version == "" {
			t.Errorf("round %d, %s: the other gateway made version %q", round, v, w.Version)
		}
		holds(t, s, version(id, w.Version), fmt.Sprint(round))
	}
}

func TestAnEnablingThatIsCutShortLosesNothingAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	gone := backends.ObjectID{Bucket: id.Bucket, Key: "gone"}
	put(t, s, id, "first")
	put(t, s, gone, "x")
	b.with(hits("bucket PATCH", 1, 1, status(http.StatusServiceUnavailable)))
	if err := s.SetVersioning(t.Context(), id.Bucket, backends.VersioningEnabled); !errors.Is(err, backends.ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	b.with(nil)
	if v, err := s.Versioning(t.Context(), id.Bucket); v != backends.VersioningOff || err != nil {
		t.Errorf("prepared: got %q, %v", v, err)
	}
	if w := put(t, s, id, "second"); w.Version != "" {
		t.Errorf("prepared: a put made version %q", w.Version)
	}
	if d := remove(t, s, gone); d != (backends.Deleted{}) {
		t.Errorf("prepared: a delete left %+v", d)
	}
	if n := generations(t, others(t, b.url), "gone"); n != 0 {
		t.Errorf("prepared: %d generations of what was deleted are left", n)
	}
	if err := s.SetVersioning(t.Context(), id.Bucket, backends.VersioningEnabled); err != nil {
		t.Fatal(err)
	}
	listed(t, s, id.Bucket, "key null")
	w := put(t, s, id, "third")
	listed(t, s, id.Bucket, "key "+w.Version, "key null")
	holds(t, s, version(id, "null"), "second")
	remove(t, s, version(id, "null"))
	remove(t, s, version(id, w.Version))
	if err := s.DeleteBucket(t.Context(), id.Bucket); err != nil {
		t.Errorf("what was replaced while the bucket was prepared keeps it: %v", err)
	}
}

// The owner of a bucket may have had it versioned, and deleted objects in it.
func TestWhatWasNoncurrentBeforeThereWereVersionsIsNone(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	client := others(t, b.url)
	bucket := client.Bucket(id.Bucket)
	if _, err := bucket.Update(t.Context(), storage.BucketAttrsToUpdate{VersioningEnabled: true}); err != nil {
		t.Fatal(err)
	}
	put(t, s, id, "replaced")
	put(t, s, id, "deleted")
	remove(t, s, id)
	if n := generations(t, client, "key"); n != 2 {
		t.Fatalf("%d generations, want 2", n)
	}
	lacks(t, s, id)
	if err := s.SetVersioning(t.Context(), id.Bucket, backends.VersioningEnabled); err != nil {
		t.Fatal(err)
	}
	lacks(t, s, id)
	listed(t, s, id.Bucket)
	w := put(t, s, id, "new")
	listed(t, s, id.Bucket, "key "+w.Version)
	remove(t, s, version(id, w.Version))
	lacks(t, s, id)
	if err := s.DeleteBucket(t.Context(), id.Bucket); !errors.Is(err, backends.ErrBucketNotEmpty) {
		t.Errorf("what the owner keeps was removed with the bucket: %v", err)
	}
}

func TestNothingIsWrittenWhereVersioningWasSwitchedOffAtTheService(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningEnabled)
	w := put(t, s, id, "kept")
	if _, err := others(t, b.url).Bucket(id.Bucket).Update(t.Context(), storage.BucketAttrsToUpdate{VersioningEnabled: false}); err != nil {
		t.Fatal(err)
	}
	other := another(t, b)
	_, putErr := other.Put(t.Context(), id, text("x"), nil)
	_, deleteErr := other.Delete(t.Context(), id, nil)
	_, copyErr := other.Copy(t.Context(), id, id, nil)
	for what, err := range map[string]error{"put": putErr, "delete": deleteErr, "copy": copyErr} {
		if !errors.Is(err, backends.ErrBucketState) {
			t.Errorf("%s: got %v, want ErrBucketState", what, err)
		}
	}
	holds(t, other, id, "kept")
	if err := other.SetVersioning(t.Context(), id.Bucket, backends.VersioningEnabled); err != nil {
		t.Fatal(err)
	}
	w2 := put(t, other, id, "next")
	listed(t, other, id.Bucket, "key "+w2.Version, "key "+w.Version)
}

func TestWithoutTheRightToSeeTheBucketThereAreNoVersions(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	b.with(func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool {
		return hits("bucket GET", 0, 1, status(http.StatusForbidden))(w, r, pass)
	})
	if _, err := s.Versioning(t.Context(), id.Bucket); !errors.Is(err, backends.ErrUnsupported) {
		t.Errorf("Versioning: got %v, want ErrUnsupported", err)
	}
	if err := s.SetVersioning(t.Context(), id.Bucket, backends.VersioningEnabled); !errors.Is(err, backends.ErrDenied) || !strings.Contains(err.Error(), "storage.buckets.update") {
		t.Errorf("SetVersioning: got %v, want ErrDenied", err)
	}
	if _, err := s.ListVersions(t.Context(), id.Bucket, nil); !errors.Is(err, backends.ErrUnsupported) {
		t.Errorf("ListVersions: got %v, want ErrUnsupported", err)
	}
	if w := put(t, s, id, "x"); w.Version != "" {
		t.Errorf("a put made version %q", w.Version)
	}
	holds(t, s, id, "x")
	remove(t, s, id)
	lacks(t, s, id)
}

func TestANullVersionThatACrashLeftIsNotShownAndGoes(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningSuspended)
	client := others(t, b.url)
	put(t, s, id, "first")
	b.with(hits("DELETE", 0, 100, status(http.StatusServiceUnavailable)))
	if w := put(t, s, id, "second"); w.Version != "null" {
		t.Errorf("made version %q", w.Version)
	}
	b.with(nil)
	if n := generations(t, client, "key"); n != 2 {
		t.Fatalf("%d generations, want the one that was to go as well", n)
	}
	listed(t, s, id.Bucket, "key null")
	holds(t, s, version(id, "null"), "second")
	// The newest goes last: what it had replaced must not come back in between.
	b.with(hits("DELETE", 1, 100, status(http.StatusServiceUnavailable)))
	if _, err := s.Delete(t.Context(), version(id, "null"), nil); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	b.with(nil)
	holds(t, s, id, "second")
	b.with(hits("DELETE", 0, 100, status(http.StatusServiceUnavailable)))
	put(t, s, id, "third")
	b.with(nil)
	if d := remove(t, s, id); d != (backends.Deleted{Version: "null", Marker: true}) {
		t.Errorf("a delete left %+v", d)
	}
	listed(t, s, id.Bucket, "key null-")
	if n := generations(t, client, "key"); n != 1 {
		t.Errorf("%d generations, want the marker alone", n)
	}
}

func TestAMarkerIsMetAlsoByARange(t *testing.T) {
	t.Parallel()
	s, _, id := versioned(t, backends.VersioningEnabled)
	put(t, s, id, "x")
	enabled := remove(t, s, id)
	if err := s.SetVersioning(t.Context(), id.Bucket, backends.VersioningSuspended); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{enabled.Version, "null"} {
		for _, r := range []*backends.Range{nil, {Offset: 0, Length: 5}, {Offset: -1}, {Offset: 7, Length: -1}} {
			_, err := s.Get(t.Context(), id, &backends.GetOptions{Range: r})
			var m *backends.MarkerError
			if !errors.Is(err, backends.ErrNotFound) || !errors.As(err, &m) || m.Version != want {
				t.Errorf("range %+v: got %v, want marker %q", r, err, want)
			}
		}
		remove(t, s, id)
	}
}

func TestOnesOwnVersionIsKnownAfterItsAnswerWasLost(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningEnabled)
	first := put(t, s, id, "first")
	for round, c := range []backends.Conditions{{IfMatch: []string{first.ETag}}, {IfNoneMatch: []string{"*"}}} {
		b.with(hits("multipart", 0, 1, lose))
		body := fmt.Sprint(round)
		w, err := s.Put(t.Context(), id, text(body), &backends.PutOptions{Conditions: c})
		if err != nil {
			t.Fatalf("%+v: %v, want success, since it is ours", c, err)
		}
		b.with(nil)
		holds(t, s, version(id, w.Version), body)
		if _, err := s.Put(t.Context(), id, text(body), &backends.PutOptions{Conditions: c}); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("%+v again: %v, want ErrPrecondition", c, err)
		}
		b.with(hits("multipart", 0, 1, lose))
		if _, err := s.Delete(t.Context(), id, &backends.DeleteOptions{Conditions: backends.Conditions{IfMatch: []string{w.ETag}}}); err != nil {
			t.Errorf("delete: %v, want success, since it is ours", err)
		}
		b.with(nil)
	}
	if got := rows(t, s, id.Bucket); len(got) != 5 {
		t.Errorf("listed %q, want 3 versions and 2 markers", got)
	}
}

// A version that was deleted by its name leaves none live: conditions are of the next.
func TestConditionsAreOfTheNewestVersionAlsoWhereItIsNotLive(t *testing.T) {
	t.Parallel()
	s, _, id := versioned(t, backends.VersioningEnabled)
	old := put(t, s, id, "old")
	remove(t, s, version(id, put(t, s, id, "new").Version))
	put := func(c backends.Conditions) error {
		_, err := s.Put(t.Context(), id, text("next"), &backends.PutOptions{Conditions: c})
		return err
	}
	if err := put(backends.Conditions{IfNoneMatch: []string{"*"}}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("If-None-Match: got %v, want ErrPrecondition", err)
	}
	if err := put(backends.Conditions{IfMatch: []string{"1"}}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("another ETag: got %v, want ErrPrecondition", err)
	}
	if err := put(backends.Conditions{IfMatch: []string{old.ETag}}); err != nil {
		t.Errorf("its ETag: %v", err)
	}
	holds(t, s, id, "next")
}

// Two gateways, sixteen clients: creates over markers, and counters.
func TestConditionalWritesOfVersionsLoseNothing(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningEnabled)
	stores := []*gcsstore.Store{s, another(t, b)}
	lost := func(err error) bool {
		return errors.Is(err, backends.ErrPrecondition) || errors.Is(err, backends.ErrConflict)
	}
	for range 3 {
		remove(t, s, id)
		var winners atomic.Int64
		var group errgroup.Group
		for i := range 16 {
			group.Go(func() error {
				_, err := stores[i%2].Put(t.Context(), id, text("0"), &backends.PutOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"*"}}})
				if err == nil {
					winners.Add(1)
				} else if !lost(err) {
					return err
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil || winners.Load() != 1 {
			t.Fatalf("%d of 16 creates over a marker succeeded, %v", winners.Load(), err)
		}
	}
	var swaps atomic.Int64
	var group errgroup.Group
	for i := range 16 {
		group.Go(func() error {
			for range 3 {
				o, err := stores[i%2].Get(t.Context(), id, nil)
				if err != nil {
					return err
				}
				digits := make([]byte, o.Size)
				_, err = o.Body.Read(digits)
				n, convErr := strconv.Atoi(string(digits))
				if _ = o.Body.Close(); convErr != nil {
					return errors.Join(err, convErr)
				}
				_, err = stores[i%2].Put(t.Context(), id, text(strconv.Itoa(n+1)), &backends.PutOptions{Conditions: backends.Conditions{IfMatch: []string{o.ETag}}})
				if err == nil {
					swaps.Add(1)
				} else if !lost(err) {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	holds(t, s, id, fmt.Sprint(swaps.Load()))
}

// While others put, mark and delete versions by name, what one has been told to be there
// is there.
func TestVersionsOfManyWritersAndDeletersAreThoseThatWereAcknowledged(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningEnabled)
	stores := []*gcsstore.Store{s, another(t, b)}
	kept := make([][]string, 16)
	var group errgroup.Group
	for i := range kept {
		group.Go(func() error {
			s := stores[i%2]
			for round := range 4 {
				w, err := s.Put(t.Context(), id, text(fmt.Sprintf("%d-%d", i, round)), nil)
				if err != nil {
					return err
				}
				d, err := s.Delete(t.Context(), id, nil)
				if err != nil {
					return err
				}
				if i%2 == 0 {
					_, err = s.Delete(t.Context(), version(id, w.Version), nil)
					kept[i] = append(kept[i], "key "+d.Version+"-")
				} else {
					_, err = s.Delete(t.Context(), version(id, d.Version), nil)
					kept[i] = append(kept[i], "key "+w.Version)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	got, want := rows(t, s, id.Bucket), slices.Concat(kept...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d versions are listed, %d were kept:\n%q\n%q", len(got), len(want), got, want)
	}
}

// Putting null versions at once leaves one, and what it replaced is removed in the end.
func TestOneOfManyNullVersionsStays(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningSuspended)
	stores := []*gcsstore.Store{s, another(t, b)}
	var group errgroup.Group
	for i := range 16 {
		group.Go(func() error {
			for range 3 {
				var err error
				if i%4 == 3 {
					_, err = stores[i%2].Delete(t.Context(), id, nil)
				} else {
					_, err = stores[i%2].Put(t.Context(), id, text(fmt.Sprint(i)), nil)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	put(t, s, id, "last")
	listed(t, s, id.Bucket, "key null")
	holds(t, s, id, "last")
	if n := generations(t, others(t, b.url), "key"); n != 1 {
		t.Errorf("%d generations are left, want 1", n)
	}
}

func TestUploadsLeaveNothingInABucketWithVersions(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningEnabled)
	for _, end := range []func(up backends.UploadID, p backends.Part) error{
		func(up backends.UploadID, p backends.Part) error {
			_, err := s.Complete(t.Context(), up, []backends.Part{p}, backends.Conditions{})
			return err
		},
		func(up backends.UploadID, _ backends.Part) error { return s.Abort(t.Context(), up) },
	} {
		up, err := s.CreateUpload(t.Context(), id.Bucket, id.Key, backends.Attributes{})
		if err != nil {
			t.Fatal(err)
		}
		var p backends.Part
		for _, body := range []string{"replaced", "part"} {
			if p, err = s.PutPart(t.Context(), up, 1, text(body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := end(up, p); err != nil {
			t.Fatal(err)
		}
		if n := generations(t, others(t, b.url), ".chatelaine/"); n != 0 {
			t.Errorf("%d generations are left of an upload", n)
		}
	}
	if _, err := s.CreateUpload(t.Context(), id.Bucket, id.Key, backends.Attributes{}); err != nil {
		t.Fatal(err)
	}
	got := rows(t, s, id.Bucket)
	if len(got) != 1 {
		t.Fatalf("listed %q, want one version", got)
	}
	remove(t, s, version(id, strings.TrimPrefix(got[0], "key ")))
	if err := s.DeleteBucket(t.Context(), id.Bucket); err != nil {
		t.Errorf("an upload keeps its bucket: %v", err)
	}
}

func TestBytesThatAreDamagedOnTheirWayAreNoVersion(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningEnabled)
	w := put(t, s, id, "good")
	b.with(hits("multipart", 0, 100, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		r.Header.Del("X-Goog-Hash")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte("abc"), []byte("abd"), 1)))
		pass.ServeHTTP(w, r)
	}))
	if _, err := s.Put(t.Context(), id, text("abc"), nil); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	b.with(nil)
	listed(t, s, id.Bucket, "key "+w.Version)
	holds(t, s, id, "good")
}

// The service ends its pages where it likes, also between the generations of a name.
func TestListingsGoOnBetweenTheGenerationsOfAName(t *testing.T) {
	t.Parallel()
	s, b, id := versioned(t, backends.VersioningEnabled)
	var want []string
	for _, key := range []string{"a", "a/b", "a/c", "b"} {
		at := backends.ObjectID{Bucket: id.Bucket, Key: key}
		var rows []string
		for range 5 {
			rows = append(rows, key+" "+put(t, s, at, key).Version)
		}
		if key == "a/c" {
			rows = append(rows, key+" "+remove(t, s, at).Version+"-")
		}
		slices.Reverse(rows)
		want = append(want, rows...)
	}
	for _, limit := range []string{"1", "2", "3", "7"} {
		b.with(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if q := r.URL.Query(); q.Has("maxResults") {
				q.Set("maxResults", limit)
				r.URL.RawQuery = q.Encode()
			}
			return false
		})
		listed(t, s, id.Bucket, want...)
		var keys []string
		for opts := (backends.ListOptions{Delimiter: "/", Limit: 1}); ; {
			page, err := s.List(t.Context(), id.Bucket, &opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Entries {
				keys = append(keys, e.Key)
			}
			keys = append(keys, page.Prefixes...)
			if opts.Token = page.Token; !page.Truncated {
				break
			}
		}
		if !slices.Equal(keys, []string{"a", "a/", "b"}) {
			t.Errorf("pages of %s: listed %q", limit, keys)
		}
	}
}
