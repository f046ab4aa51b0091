package backendtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"chatelaine/backends"
)

func versionTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"AreOffUntilTheyAreEnabled":            versionsOff,
		"KeepWhatIsReplaced":                   versionsReplaced,
		"CallWhatWasThereBeforeThemNull":       versionsNull,
		"HideWhatIsDeletedBehindAMarker":       versionsMarker,
		"ComeBackWhenTheMarkerIsDeleted":       versionsMarkerDeleted,
		"MakeTheNextTheNewestWhenOneIsDeleted": versionsDeleted,
		"OfASuspendedBucketReplaceNullOnly":    versionsSuspended,
		"AreNotFoundWhereTheyHaveGone":         versionsUnknown,
		"GuardWhatIsNewest":                    versionsConditions,
		"KeepTheirBucket":                      versionsKeepBucket,
		"AreMadeByComplete":                    versionsOfParts,
		"AreMadeByCopies":                      versionsCopied,
		"AgreeWithAModel":                      versionsModel,
		"CanBeDeletedPageByPage":               versionsPageByPage,
		"AreAllKeptWhenManyWrite":              versionsConcurrent,
		"CanBeReadWhileTheirPlaceChanges":      versionsMoving,
		"EndWithTheirContext":                  versionsCancelled,
		"AreReportedWhereTheBucketIsMissing":   versionsMissing,
	}
}

func (f *fixture) versioning(v backends.Versioning) {
	f.Helper()
	f.ok(f.versions.SetVersioning(f.Context(), f.bucket, v))
	if got, err := f.versions.Versioning(f.Context(), f.bucket); err != nil || got != v {
		f.Fatalf("versioning is %q, %v; want %q", got, err, v)
	}
}

// putVersion wants a version to be made.
func (f *fixture) putVersion(key string, data []byte) string {
	f.Helper()
	w := f.put(key, data)
	if w.Version == "" {
		f.Fatalf("putting %q made no version", key)
	}
	return w.Version
}

// has wants a version to have these bytes, by Get and Head; empty means the newest.
func (f *fixture) has(key, version string, want []byte) {
	f.Helper()
	o, err := f.store.Get(f.Context(), f.version(key, version), nil)
	f.ok(err)
	got, err := io.ReadAll(o.Body)
	f.ok(errors.Join(err, o.Body.Close()))
	info, err := f.store.Head(f.Context(), f.version(key, version), nil)
	f.ok(err)
	if string(got) != string(want) || o.Version == "" && !f.opts.NamelessNull || info.Version != o.Version || version != "" && o.Version != version || info.Size != int64(len(want)) {
		f.Fatalf("version %q of %q is %.20q by Get, of version %q, and %d bytes by Head, of version %q; want %.20q",
			version, key, got, o.Version, info.Size, info.Version, want)
	}
}

// hasMarker wants Get and Head to meet a delete marker.
func (f *fixture) hasMarker(key, version, marker string) {
	f.Helper()
	want := backends.ErrNotFound
	if version != "" {
		want = backends.ErrDeleteMarker
	}
	_, err := f.store.Get(f.Context(), f.version(key, version), nil)
	_, err2 := f.store.Head(f.Context(), f.version(key, version), nil)
	for _, err := range []error{err, err2} {
		var m *backends.MarkerError
		if !errors.Is(err, want) || !errors.As(err, &m) || m.Version != marker || m.Asked != (version != "") {
			f.Fatalf("version %q of %q: error %v, marker %+v; want %v by marker %q", version, key, err, m, want, marker)
		}
	}
}

func (f *fixture) hasNot(key, version string) {
	f.Helper()
	_, err := f.store.Get(f.Context(), f.version(key, version), nil)
	f.is(err, backends.ErrVersionNotFound)
	_, err = f.store.Head(f.Context(), f.version(key, version), nil)
	f.is(err, backends.ErrVersionNotFound)
}

func (f *fixture) delete(key, version string) backends.Deleted {
	f.Helper()
	d, err := f.store.Delete(f.Context(), f.version(key, version), nil)
	f.ok(err)
	return d
}

// mark wants a Delete to leave a marker.
func (f *fixture) mark(key string) string {
	f.Helper()
	d := f.delete(key, "")
	if !d.Marker || d.Version == "" {
		f.Fatalf("deleting %q: %+v, want a marker", key, d)
	}
	return d.Version
}

// markNull wants a Delete to leave a marker that is the null version.
func (f *fixture) markNull(key string) {
	f.Helper()
	if d := f.delete(key, ""); (!d.Marker || d.Version != "null") && !f.opts.NamelessNull {
		f.Fatalf("deleting %q: %+v, want a null marker", key, d)
	}
}

// row is what a test wants of a row of ListVersions: "key version", with "*" before
// the newest and "-" behind a marker, or "prefix/".
func row(v backends.VersionInfo) string {
	text := v.Key + " " + v.Version
	if v.Latest {
		text = "*" + text
	}
	if v.Marker {
		text += "-"
	}
	return text
}

// versionRows reads all pages of ListVersions, and checks each.
func (f *fixture) versionRows(opts backends.ListVersionsOptions) (rows []string) {
	f.Helper()
	for range 1000 {
		page, err := f.versions.ListVersions(f.Context(), f.bucket, &opts)
		f.ok(err)
		if n := len(page.Versions) + len(page.Prefixes); opts.Limit > 0 && (n > opts.Limit || page.Truncated && n < opts.Limit) {
			f.Fatalf("%+v: a page of %d rows, truncated: %v", opts, n, page.Truncated)
		}
		rows = append(rows, f.rowsOfVersions(page)...)
		if !page.Truncated {
			return rows
		}
		if page.NextKey == opts.KeyMarker && page.NextVersionMark == opts.VersionMarker || page.NextKey == "" {
			f.Fatalf("%+v: goes on at %q, %q", opts, page.NextKey, page.NextVersionMark)
		}
		opts.KeyMarker, opts.VersionMarker = page.NextKey, page.NextVersionMark
	}
	f.Fatalf("%+v: there is no end to it", opts)
	return nil
}

func (f *fixture) rowsOfVersions(page *backends.VersionsPage) (rows []string) {
	f.Helper()
	prefixes := page.Prefixes
	for _, v := range page.Versions {
		for len(prefixes) > 0 && prefixes[0] < v.Key {
			rows, prefixes = append(rows, prefixes[0]), prefixes[1:]
		}
		rows = append(rows, row(v))
		if v.Modified.IsZero() || v.Marker == (v.ETag != "") || v.Marker && v.Size != 0 {
			f.Errorf("a version is listed as %+v", v)
		}
	}
	return append(rows, prefixes...)
}

// listed wants ListVersions to have these rows, in pages of all sizes.
func (f *fixture) listed(want ...string) {
	f.Helper()
	for _, limit := range []int{0, 1, 2, 3} {
		if got := f.versionRows(backends.ListVersionsOptions{Limit: limit}); !slices.Equal(got, want) {
			f.Fatalf("limit %d: listed %q, want %q", limit, got, want)
		}
	}
}

// shows wants List to have these keys, and nothing of versions.
func (f *fixture) shows(keys ...string) {
	f.Helper()
	if got, want := f.listAll(backends.ListOptions{Limit: 2}), rows(keys, backends.ListOptions{}); !slices.Equal(got, want) {
		f.Fatalf("List has %q, want %q", got, want)
	}
}

func versionsOff(f *fixture) {
	if v, err := f.versions.Versioning(f.Context(), f.bucket); v != backends.VersioningOff || err != nil {
		f.Fatalf("versioning of a new bucket: %q, %v", v, err)
	}
	f.put("key", []byte("one"))
	w := f.put("key", []byte("two"))
	o, _ := f.read("key", nil)
	if w.Version != "" || o.Version != "" {
		f.Errorf("versions %q and %q where there are none", w.Version, o.Version)
	}
	f.listed("*key null")
	if d := f.delete("key", ""); d != (backends.Deleted{}) {
		f.Errorf("a delete left %+v", d)
	}
	f.lacks("key")
	f.listed()
	f.is(f.versions.SetVersioning(f.Context(), f.bucket, backends.VersioningOff), backends.ErrBucketState)
	f.versioning(backends.VersioningEnabled)
	f.is(f.versions.SetVersioning(f.Context(), f.bucket, backends.VersioningOff), backends.ErrBucketState)
	f.versioning(backends.VersioningSuspended)
	f.versioning(backends.VersioningEnabled)
}

func versionsReplaced(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	var ids []string
	for i := range 5 {
		ids = append(ids, f.putVersion("a/key", []byte{byte(i)}))
	}
	for i, id := range ids {
		f.has("a/key", id, []byte{byte(i)})
	}
	f.has("a/key", "", []byte{4})
	f.shows("a/key")
	f.listed("*a/key "+ids[4], "a/key "+ids[3], "a/key "+ids[2], "a/key "+ids[1], "a/key "+ids[0])
}

func versionsNull(f *fixture) {
	f.put("key", []byte("before"))
	f.versioning(backends.VersioningEnabled)
	f.has("key", "null", []byte("before"))
	f.has("key", "", []byte("before"))
	id := f.putVersion("key", []byte("after"))
	f.has("key", "null", []byte("before"))
	f.has("key", "", []byte("after"))
	f.listed("*key "+id, "key null")
	f.delete("key", "null")
	f.hasNot("key", "null")
	f.listed("*key " + id)
}

func versionsMarker(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	id := f.putVersion("a/key", []byte("x"))
	m := f.mark("a/key")
	f.hasMarker("a/key", "", m)
	f.hasMarker("a/key", m, m)
	f.has("a/key", id, []byte("x"))
	f.shows()
	if got := f.listAll(backends.ListOptions{Delimiter: "/"}); len(got) != 0 && !f.opts.MarkersInPrefixes {
		f.Errorf("a prefix of nothing but markers is listed: %q", got)
	}
	again := f.putVersion("a/key", []byte("y"))
	f.has("a/key", "", []byte("y"))
	f.shows("a/key")
	f.listed("*a/key "+again, "a/key "+m+"-", "a/key "+id)
	if f.opts.MarksObjectsOnly {
		return
	}
	m2, m3 := f.mark("a/key"), f.mark("a/key")
	f.hasMarker("a/key", "", m3)
	n := f.mark("never/was")
	f.hasMarker("never/was", "", n)
	f.shows()
	f.listed("*a/key "+m3+"-", "a/key "+m2+"-", "a/key "+again, "a/key "+m+"-", "a/key "+id, "*never/was "+n+"-")
}

func versionsMarkerDeleted(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	id := f.putVersion("a/key", []byte("x"))
	m := f.mark("a/key")
	if d := f.delete("a/key", m); !d.Marker || d.Version != m {
		f.Errorf("deleting a marker: %+v", d)
	}
	f.has("a/key", "", []byte("x"))
	f.shows("a/key")
	f.listed("*a/key " + id)
	if f.opts.MarksObjectsOnly {
		return
	}
	m, m2 := f.mark("a/key"), f.mark("a/key")
	f.delete("a/key", m2)
	f.hasMarker("a/key", "", m)
	f.delete("a/key", m)
	f.has("a/key", "", []byte("x"))
	n := f.mark("never/was")
	f.delete("never/was", n)
	f.lacks("never/was")
	f.listed("*a/key " + id)
}

func versionsDeleted(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	a, b := f.putVersion("a/key", []byte("a")), f.putVersion("a/key", []byte("b"))
	m := f.mark("a/key")
	c, d := f.putVersion("a/key", []byte("c")), f.putVersion("a/key", []byte("d"))
	if got := f.delete("a/key", b); got.Marker || got.Version != b {
		f.Errorf("deleting a version: %+v", got)
	}
	f.has("a/key", "", []byte("d"))
	f.delete("a/key", d)
	f.has("a/key", "", []byte("c"))
	f.has("a/key", c, []byte("c"))
	f.delete("a/key", c)
	f.hasMarker("a/key", "", m)
	f.shows()
	f.listed("*a/key "+m+"-", "a/key "+a)
	f.delete("a/key", a)
	f.hasMarker("a/key", "", m)
	f.delete("a/key", m)
	f.lacks("a/key")
	f.listed()
	f.ok(f.store.DeleteBucket(f.Context(), f.bucket))
}

func versionsSuspended(f *fixture) {
	f.put("key", []byte("first null"))
	f.versioning(backends.VersioningEnabled)
	a := f.putVersion("key", []byte("a"))
	f.versioning(backends.VersioningSuspended)
	if w := f.put("key", []byte("second null")); w.Version != "" && w.Version != "null" {
		f.Errorf("a suspended bucket made version %q", w.Version)
	}
	f.has("key", "null", []byte("second null"))
	f.listed("*key null", "key "+a)
	f.put("key", []byte("third null"))
	f.has("key", "", []byte("third null"))
	f.listed("*key null", "key "+a)
	f.markNull("key")
	f.hasMarker("key", "null", "null")
	f.has("key", a, []byte("a"))
	f.listed("*key null-", "key "+a)
	f.versioning(backends.VersioningEnabled)
	b := f.putVersion("key", []byte("b"))
	f.listed("*key "+b, "key null-", "key "+a)
	f.versioning(backends.VersioningSuspended)
	f.put("key", []byte("fourth null"))
	f.listed("*key null", "key "+b, "key "+a)
	f.delete("key", "null")
	f.has("key", "", []byte("b"))
	f.markNull("key")
	f.markNull("key")
	f.listed("*key null-", "key "+b, "key "+a)
	f.delete("key", "null")
	f.has("key", "", []byte("b"))
}

func versionsUnknown(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	gone, other := f.putVersion("key", []byte("x")), f.putVersion("other", []byte("y"))
	f.delete("key", gone)
	f.hasNot("key", gone)
	f.putVersion("key", []byte("z"))
	for _, version := range []string{gone, other, "null"} {
		f.hasNot("key", version)
		_, err := f.store.Delete(f.Context(), f.version("key", version), nil)
		f.ok(err)
	}
	f.has("key", "", []byte("z"))
	f.has("other", other, []byte("y"))
}

func versionsConditions(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	star := []string{"*"}
	a := f.put("key", []byte("a"))
	_, err := f.putIf("key", []byte("b"), backends.Conditions{IfNoneMatch: star})
	f.is(err, backends.ErrPrecondition)
	_, err = f.putIf("key", []byte("b"), backends.Conditions{IfMatch: []string{a.ETag}})
	f.ok(err)
	_, err = f.putIf("key", []byte("c"), backends.Conditions{IfMatch: []string{a.ETag}})
	f.is(err, backends.ErrPrecondition)
	if !f.opts.NoConditionalDelete {
		_, err = f.store.Delete(f.Context(), f.id("key"), &backends.DeleteOptions{Conditions: backends.Conditions{IfMatch: []string{a.ETag}}})
		f.is(err, backends.ErrPrecondition)
	}
	f.has("key", "", []byte("b"))
	f.mark("key")
	_, err = f.putIf("key", []byte("c"), backends.Conditions{IfMatch: []string{a.ETag}})
	f.is(err, backends.ErrNotFound, backends.ErrPrecondition)
	_, err = f.putIf("key", []byte("c"), backends.Conditions{IfNoneMatch: star})
	f.ok(err)
	f.has("key", "", []byte("c"))
	if got := f.versionRows(backends.ListVersionsOptions{}); len(got) != 4 {
		f.Errorf("listed %q, want 4 versions", got)
	}
	_, err = f.store.Get(f.Context(), f.version("key", a.Version), &backends.GetOptions{Conditions: backends.Conditions{IfNoneMatch: []string{a.ETag}}})
	f.is(err, backends.ErrNotModified)
}

func versionsKeepBucket(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	id := f.putVersion("a/b/c", []byte("x"))
	m := f.mark("a/b/c")
	f.is(f.store.DeleteBucket(f.Context(), f.bucket), backends.ErrBucketNotEmpty)
	f.delete("a/b/c", id)
	f.is(f.store.DeleteBucket(f.Context(), f.bucket), backends.ErrBucketNotEmpty)
	f.hasMarker("a/b/c", m, m)
	f.delete("a/b/c", m)
	f.ok(f.store.DeleteBucket(f.Context(), f.bucket))
	f.ok(f.store.CreateBucket(f.Context(), f.bucket))
	if v, err := f.versions.Versioning(f.Context(), f.bucket); v != backends.VersioningOff || err != nil {
		f.Errorf("a bucket of the name of another has its versioning: %q, %v", v, err)
	}
}

func versionsOfParts(f *fixture) {
	if f.parts == nil {
		f.Skip("the store has no multipart uploads")
	}
	f.versioning(backends.VersioningEnabled)
	complete := func(tail string) (string, []byte) {
		data := [][]byte{random(minPart, 1), []byte(tail)}
		up, parts := f.upload("key", data...)
		w, err := f.complete(up, parts)
		f.ok(err)
		if w.Version == "" {
			f.Fatal("Complete made no version")
		}
		return w.Version, slices.Concat(data...)
	}
	a, first := complete("a")
	b, second := complete("b")
	f.has("key", a, first)
	f.mark("key")
	c := f.putVersion("key", []byte("c"))
	f.has("key", b, second)
	o, err := f.store.Get(f.Context(), f.version("key", a), nil)
	f.ok(err)
	if !f.opts.ReadersBlockWriters {
		f.delete("key", a)
	}
	got, err := io.ReadAll(o.Body)
	if err == nil && string(got) != string(first) {
		f.Error("deleted while it was read: other bytes came")
	}
	f.ok(o.Body.Close())
	f.delete("key", a)
	f.delete("key", c)
	f.has("key", b, second)
}

func versionsCopied(f *fixture) {
	if f.copier == nil {
		f.Skip("the store does not copy")
	}
	f.versioning(backends.VersioningEnabled)
	a := f.putVersion("key", []byte("a"))
	b := f.putVersion("key", []byte("b"))
	m := f.mark("key")
	_, err := f.copy("key", "copy", nil)
	f.is(err, backends.ErrNotFound)
	_, err = f.copier.Copy(f.Context(), f.version("key", m), f.id("copy"), nil)
	// S3 answers 400 InvalidRequest: the source of a copy may not refer to a marker.
	f.is(err, backends.ErrDeleteMarker, backends.ErrNotFound, backends.ErrVersionNotFound)
	w, err := f.copier.Copy(f.Context(), f.version("key", a), f.id("key"), nil)
	f.ok(err)
	f.has("key", w.Version, []byte("a"))
	f.listed("*key "+w.Version, "key "+m+"-", "key "+b, "key "+a)
	f.delete("key", a)
	_, err = f.copier.Copy(f.Context(), f.version("key", a), f.id("copy"), nil)
	f.is(err, backends.ErrVersionNotFound)
}

// model is what a versioned bucket must hold: the versions of each key, the newest
// first.
type model struct {
	*fixture
	state backends.Versioning
	keys  map[string][]modelVersion
}

type modelVersion struct {
	id     string
	data   string
	marker bool
}

// rows is the oracle of ListVersions.
func (m *model) rows(prefix, delimiter string) (rows []string) {
	for _, key := range slices.Sorted(maps.Keys(m.keys)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if before, _, ok := strings.Cut(key[len(prefix):], delimiter); ok && delimiter != "" {
			if common := prefix + before + delimiter; len(m.keys[key]) > 0 && !slices.Contains(rows, common) {
				rows = append(rows, common)
			}
			continue
		}
		for i, v := range m.keys[key] {
			rows = append(rows, row(backends.VersionInfo{Info: backends.Info{Key: key, Version: v.id}, Latest: i == 0, Marker: v.marker}))
		}
	}
	return rows
}

// push adds a version, in the place of the null version where it is one.
func (m *model) push(key string, v modelVersion) {
	old := m.keys[key]
	if m.state != backends.VersioningEnabled {
		v.id = "null"
		old = slices.DeleteFunc(slices.Clone(old), func(v modelVersion) bool { return v.id == "null" })
	}
	m.keys[key] = append([]modelVersion{v}, old...)
}

// step does something to a key.
func (m *model) step(r *rand.Rand, n int) {
	key := []string{"a", "a/b", "a/c/d", "b"}[r.IntN(4)]
	versions := m.keys[key]
	switch what := r.IntN(10); {
	case what < 4:
		data := fmt.Sprintf("data %d", n)
		m.push(key, modelVersion{id: m.put(key, []byte(data)).Version, data: data})
	case what < 6:
		d := m.delete(key, "")
		m.push(key, modelVersion{id: d.Version, marker: true})
	case what < 9 && len(versions) > 0:
		i := r.IntN(len(versions))
		m.delete(key, versions[i].id)
		m.keys[key] = slices.Delete(slices.Clone(versions), i, i+1)
	case what == 9:
		m.state = []backends.Versioning{backends.VersioningEnabled, backends.VersioningSuspended}[r.IntN(2)]
		m.versioning(m.state)
	}
}

// check wants the store to be as the model says.
func (m *model) check() {
	m.Helper()
	var live []string
	for key, versions := range m.keys {
		for _, v := range versions {
			if v.marker {
				m.hasMarker(key, v.id, v.id)
			} else {
				m.has(key, v.id, []byte(v.data))
			}
		}
		switch {
		case len(versions) == 0:
			m.lacks(key)
		case versions[0].marker:
			m.hasMarker(key, "", versions[0].id)
		default:
			m.has(key, "", []byte(versions[0].data))
			live = append(live, key)
		}
	}
	slices.Sort(live)
	m.shows(live...)
}

func versionsModel(f *fixture) {
	if f.opts.Merges {
		f.Skip("the store cannot hold the keys of the model")
	}
	r := rand.New(rand.NewPCG(1, 2))
	m := &model{f, backends.VersioningEnabled, map[string][]modelVersion{}}
	f.put("a", []byte("before"))
	m.keys["a"] = []modelVersion{{id: "null", data: "before"}}
	m.versioning(m.state)
	for n := range 120 {
		m.step(r, n)
		if got, want := m.versionRows(backends.ListVersionsOptions{}), m.rows("", ""); !slices.Equal(got, want) {
			f.Fatalf("after step %d: listed %q, want %q", n, got, want)
		}
		if n%10 == 9 {
			m.check()
		}
	}
	for limit := range 6 {
		for _, prefix := range []string{"", "a", "a/", "none"} {
			for _, delimiter := range []string{"", "/"} {
				opts := backends.ListVersionsOptions{Prefix: prefix, Delimiter: delimiter, Limit: limit}
				if got, want := m.versionRows(opts), m.rows(prefix, delimiter); !slices.Equal(got, want) {
					f.Errorf("%+v: listed %q, want %q", opts, got, want)
				}
			}
		}
	}
}

// versionsPageByPage is how clients empty a bucket: the markers of a page name what
// has been deleted when they come back.
func versionsPageByPage(f *fixture) {
	f.put("b", nil)
	f.versioning(backends.VersioningEnabled)
	for range 3 {
		f.putVersion("a", nil)
		f.putVersion("b", nil)
		f.putVersion("c", nil)
		f.mark("c")
	}
	opts := backends.ListVersionsOptions{Limit: 2}
	for pages := 1; ; pages++ {
		page, err := f.versions.ListVersions(f.Context(), f.bucket, &opts)
		f.ok(err)
		for _, v := range page.Versions {
			f.delete(v.Key, v.Version)
		}
		if !page.Truncated {
			break
		}
		if opts.KeyMarker, opts.VersionMarker = page.NextKey, page.NextVersionMark; pages > 20 {
			f.Fatal("there is no end to it")
		}
	}
	f.listed()
}

func versionsConcurrent(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	var mu sync.Mutex
	made := map[string]string{}
	f.each(12, func(i int) error {
		for round := range 5 {
			data := fmt.Sprintf("%d-%d", i, round)
			if i%4 == 3 {
				d, err := f.store.Delete(f.Context(), f.id("key"), nil)
				if err != nil {
					return err
				}
				mu.Lock()
				made[d.Version] = ""
				mu.Unlock()
				continue
			}
			w, err := f.putIf("key", []byte(data), backends.Conditions{})
			if err != nil {
				return err
			}
			mu.Lock()
			made[w.Version] = data
			mu.Unlock()
		}
		return nil
	})
	page, err := f.versions.ListVersions(f.Context(), f.bucket, nil)
	f.ok(err)
	delete(made, "") // only where MarksObjectsOnly is
	if len(made) != 60 && !f.opts.MarksObjectsOnly || len(made) < 45 || len(page.Versions) != len(made) {
		f.Fatalf("60 writes made %d versions; %d are listed", len(made), len(page.Versions))
	}
	for i, v := range page.Versions {
		data, ok := made[v.Version]
		if !ok || v.Latest != (i == 0) || v.Marker != (data == "") {
			f.Fatalf("row %d is %+v, made with %q", i, v, data)
		}
		if !v.Marker {
			f.has("key", v.Version, []byte(data))
		}
	}
}

// versionsMoving reads a version that becomes the newest and ceases to be so.
func versionsMoving(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	id := f.putVersion("key", []byte("x"))
	f.each(4, func(i int) error {
		for range 20 {
			if i > 0 {
				info, err := f.store.Head(f.Context(), f.version("key", id), nil)
				if err != nil || info.Version != id {
					return fmt.Errorf("version %q is said to be %q: %w", id, info.Version, err)
				}
				continue
			}
			w, err := f.putIf("key", []byte("y"), backends.Conditions{})
			if err != nil {
				return err
			}
			d, err := f.store.Delete(f.Context(), f.id("key"), nil)
			if err != nil {
				return err
			}
			_, err = f.store.Delete(f.Context(), f.version("key", w.Version), nil)
			_, err2 := f.store.Delete(f.Context(), f.version("key", d.Version), nil)
			if err = errors.Join(err, err2); err != nil {
				return err
			}
		}
		return nil
	})
	f.listed("*key " + id)
}

func versionsCancelled(f *fixture) {
	f.versioning(backends.VersioningEnabled)
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	_, err := f.versions.Versioning(ctx, f.bucket)
	f.is(err, context.Canceled)
	f.is(f.versions.SetVersioning(ctx, f.bucket, backends.VersioningSuspended), context.Canceled)
	_, err = f.versions.ListVersions(ctx, f.bucket, nil)
	f.is(err, context.Canceled)
	if v, err := f.versions.Versioning(f.Context(), f.bucket); v != backends.VersioningEnabled || err != nil {
		f.Errorf("versioning is %q, %v", v, err)
	}
}

func versionsMissing(f *fixture) {
	f.ok(f.store.DeleteBucket(f.Context(), f.bucket))
	_, err := f.versions.Versioning(f.Context(), f.bucket)
	f.is(err, backends.ErrBucketNotFound)
	f.is(f.versions.SetVersioning(f.Context(), f.bucket, backends.VersioningEnabled), backends.ErrBucketNotFound)
	_, err = f.versions.ListVersions(f.Context(), f.bucket, nil)
	f.is(err, backends.ErrBucketNotFound)
}
