package filestore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatelaine/backends"
)

const (
	off       = backends.VersioningOff
	enabled   = backends.VersioningEnabled
	suspended = backends.VersioningSuspended
)

func (f inBucket) set(v backends.Versioning) {
	f.Helper()
	if v == off {
		return
	}
	if err := f.SetVersioning(context.Background(), f.bucket, v); err != nil {
		f.Fatal(err)
	}
}

func (f inBucket) version(key, version string) backends.ObjectID {
	return backends.ObjectID{Bucket: f.bucket, Key: key, Version: version}
}

func (f inBucket) delete(key, version string) error {
	_, err := f.Delete(context.Background(), f.version(key, version), nil)
	return err
}

func (f inBucket) rows() []backends.VersionInfo {
	f.Helper()
	page, err := f.ListVersions(context.Background(), f.bucket, nil)
	if err != nil {
		f.Fatal(err)
	}
	return page.Versions
}

// read gets a version whole.
func (f inBucket) read(key, version string) (*backends.Object, string, error) {
	o, err := f.Get(context.Background(), f.version(key, version), nil)
	if err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(o.Body)
	return o, string(data), errors.Join(err, o.Body.Close())
}

// view is all that clients can see of the bucket, without the names of versions. It
// fails where one way to look contradicts another.
func (f inBucket) view() (rows []string) {
	f.Helper()
	var live []string
	for _, v := range f.rows() {
		text := v.Key
		if v.Version == backends.NullVersion {
			text += " null"
		}
		o, data, err := f.read(v.Key, v.Version)
		switch {
		case v.Marker && errors.Is(err, backends.ErrDeleteMarker):
			text += " marker"
		case err != nil:
			f.Fatalf("version %q of %q is listed and cannot be read: %v", v.Version, v.Key, err)
		default:
			text += fmt.Sprintf(" %.20s %d", data, o.TagCount)
		}
		if rows = append(rows, text); !v.Latest {
			continue
		}
		_, newest, err := f.read(v.Key, "")
		if v.Marker != errors.Is(err, backends.ErrNotFound) || !v.Marker && (err != nil || newest != data) {
			f.Fatalf("the newest of %q is %+v with %.20q, and read as %.20q, %v", v.Key, v, data, newest, err)
		}
		if !v.Marker {
			live = append(live, v.Key)
		}
	}
	f.lists(live)
	return rows
}

// lists wants List to have these keys, and those prefixes that they have.
func (f inBucket) lists(keys []string) {
	f.Helper()
	for _, delimiter := range []string{"", "/"} {
		page, err := f.List(context.Background(), f.bucket, &backends.ListOptions{Delimiter: delimiter})
		if err != nil {
			f.Fatal(err)
		}
		var want, got []string
		for _, key := range keys {
			if before, _, rolled := strings.Cut(key, "/"); rolled && delimiter != "" {
				key = before + "/"
			}
			want = append(want, key)
		}
		for _, e := range page.Entries {
			got = append(got, e.Key)
		}
		got = append(got, page.Prefixes...)
		slices.Sort(got)
		if want = slices.Compact(want); !slices.Equal(got, want) {
			f.Fatalf("delimiter %q: listed %q, want %q", delimiter, got, want)
		}
	}
}

// histories are what a key can have been through, the last step being the newest:
// e(nable), s(uspend), p(ut), d(elete), m(ultipart).
func histories() []string {
	return []string{"", "p", "pe", "ep", "epp", "epd", "epdd", "ed", "epdp", "esp", "eps", "epsp", "epsd", "eppsd", "pepsd", "pep", "peps", "epsdep", "em", "emd", "emmsm"}
}

// live makes a key go through a history.
func (f inBucket) live(history string) {
	f.Helper()
	for i, step := range history {
		data := fmt.Appendf(nil, "data %d", i)
		switch step {
		case 'e':
			f.set(enabled)
		case 's':
			f.set(suspended)
		case 'p':
			f.put("dir/key", data)
		case 'm':
			if err := f.parted("dir/key", data); err != nil {
				f.Fatal(err)
			}
		case 'd':
			if err := f.delete("dir/key", ""); err != nil {
				f.Fatal(err)
			}
		}
	}
}

// parted makes an object of one part.
func (f inBucket) parted(key string, data []byte) error {
	ctx := context.Background()
	up, err := f.CreateUpload(ctx, f.bucket, key, backends.Attributes{})
	if err != nil {
		return err
	}
	p, err := f.PutPart(ctx, up, 1, backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))})
	if err != nil {
		return err
	}
	_, err = f.Complete(ctx, up, []backends.Part{p}, backends.Conditions{})
	return err
}

// dying are the changes that may end half way.
func dying() map[string]func(inBucket) error {
	ctx := context.Background()
	nth := func(n int) func(inBucket) error {
		return func(f inBucket) error {
			if rows := f.rows(); n < len(rows) {
				return f.delete("dir/key", rows[n].Version)
			}
			return nil
		}
	}
	return map[string]func(inBucket) error{
		"put":               func(f inBucket) error { return f.try("dir/key", []byte("changed")) },
		"delete":            func(f inBucket) error { return f.delete("dir/key", "") },
		"delete the newest": nth(0),
		"delete the next":   nth(1),
		"delete the third":  nth(2),
		"complete":          func(f inBucket) error { return f.parted("dir/key", []byte("changed")) },
		"tag": func(f inBucket) error {
			_, err := f.SetTags(ctx, f.id("dir/key"), backends.Tags{"a": "1"})
			if errors.Is(err, backends.ErrNotFound) {
				err = nil
			}
			return err
		},
	}
}

var errDied = errors.New("the process died here")

// TestAChangeThatEndsHalfWayIsSeenWholeOrNotAtAll stops every change before each of
// its renames, links and removals, for every history, looks, and lets the client try
// again.
func TestAChangeThatEndsHalfWayIsSeenWholeOrNotAtAll(t *testing.T) {
	for name, change := range dying() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, history := range histories() {
				steps := 0
				for more := true; more; steps++ {
					more = endHalfWay(t, history, steps, change)
				}
				t.Logf("%q: %d steps", history, steps)
			}
		})
	}
}

// endHalfWay stops a change before its nth step; false means that it has fewer.
func endHalfWay(t *testing.T, history string, n int, change func(inBucket) error) (more bool) {
	t.Helper()
	f := within(t, open(t, quickDir(t)))
	defer f.Close()
	f.sweeper.Wait() // it would count as a step
	f.fsync = noSync
	f.live(history)
	before, left := f.view(), n
	f.moving = func() error {
		if left--; left < 0 {
			return errDied
		}
		return nil
	}
	err := change(f)
	f.moving = func() error { return nil }
	if err != nil && !errors.Is(err, errDied) {
		t.Fatalf("%q, step %d: %v", history, n, err)
	}
	died := f.view()
	if err != nil {
		if err := change(f); err != nil {
			t.Fatalf("%q, step %d: trying again: %v", history, n, err)
		}
	}
	// Trying again may have put or marked for a second time, or deleted one version
	// more: the view in between must be one of those that whole changes lead to.
	if !slices.Equal(died, before) && err != nil && !slices.Equal(died, whole(t, history, change)) {
		t.Fatalf("%q, step %d: before %q,\nhalf way %q,\nwhole %q", history, n, before, died, whole(t, history, change))
	}
	f.view()
	f.vanish()
	return err != nil
}

// whole is the view after a history and a change that does not end half way.
func whole(t *testing.T, history string, change func(inBucket) error) []string {
	t.Helper()
	f := within(t, open(t, quickDir(t)))
	defer f.Close()
	f.fsync = noSync
	f.live(history)
	if err := change(f); err != nil {
		t.Fatal(err)
	}
	return f.view()
}

// vanish deletes every version and the bucket, and wants nothing to be left.
func (f inBucket) vanish() {
	f.Helper()
	for _, v := range f.rows() {
		if err := f.delete(v.Key, v.Version); err != nil {
			f.Fatal(err)
		}
	}
	if rows := f.rows(); len(rows) != 0 {
		f.Fatalf("left: %+v", rows)
	}
	for _, dir := range []string{f.objects(f.bucket), f.versions(f.bucket), f.notes(f.bucket)} {
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				f.Errorf("left: %q", path)
			}
			return present(err)
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	if err := f.DeleteBucket(context.Background(), f.bucket); err != nil {
		f.Fatal(err)
	}
}

// TestABucketWithoutVersionsIsAsItWasBefore has a file as it was written before there
// were versions, and wants the same to be written today.
func TestABucketWithoutVersionsIsAsItWasBefore(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	text := `{"key":"old","size":4,"etag":"0123","content_type":"x/y","metadata":{"cho1":"1"}}`
	b, err := frame([]byte(text))
	if err == nil {
		err = os.WriteFile(f.objects("bucket")+"/old", append(b, "data"...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	o, data, err := f.read("old", "")
	if err != nil || data != "data" || o.ETag != "0123" || o.Version != "" || o.Attributes.Metadata["cho1"] != "1" {
		t.Fatalf("got %+v with %q, %v", o, data, err)
	}
	attrs := backends.Attributes{ContentType: "x/y", Metadata: map[string]string{"cho1": "1"}}
	w, err := f.Put(t.Context(), f.id("new"), backends.Body{Reader: strings.NewReader("data"), Size: 4}, &backends.PutOptions{Attributes: attrs})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.objects("bucket") + "/new")
	want := strings.NewReplacer("old", "new", "0123", w.ETag).Replace(text) + "data"
	if err != nil || string(got[preamble:]) != want {
		t.Errorf("wrote %q, %v; want %q", got, err, want)
	}
	if got, want := names(t, f.Store.bucket("bucket")), []string{"created", "objects", "parts", "uploads"}; !slices.Equal(got, want) {
		t.Errorf("the bucket has %q, want %q", got, want)
	}
	f.set(enabled)
	f.put("old", []byte("later"))
	if o, data, err := f.read("old", backends.NullVersion); err != nil || data != "data" || o.Version != backends.NullVersion {
		t.Errorf("the version before: %+v with %q, %v", o, data, err)
	}
}

// TestAVersionIsSyncedBeforeItIsHidden is what a kill -9 cannot show.
func TestAVersionIsSyncedBeforeItIsHidden(t *testing.T) {
	root := t.TempDir()
	f := within(t, open(t, root))
	defer f.Close()
	f.set(enabled)
	f.put("a/k", nil)
	f.sweeper.Wait()
	rec := &syncs{root: root}
	f.fsync = rec.sync
	var moves []string
	f.moving = func() error {
		moves = append(moves, strings.Join(rec.take(), " "))
		return nil
	}
	for _, c := range []struct {
		name string
		do   func() error
		want []string // what is synced before each change of a name, and at the end
	}{
		{"put", func() error { return f.try("a/k", nil) }, []string{"tmp", "", "versions/a%/k versions/a% versions buckets/bucket", "objects/a%"}},
		{"put again", func() error { return f.try("a/k", nil) }, []string{"tmp", "versions/a%/k", "objects/a%"}},
		{"delete", func() error { return f.delete("a/k", "") }, []string{"tmp", "versions/a%/k", "", "versions/a%/k objects"}},
		{"put over a marker", func() error { return f.try("a/k", nil) }, []string{"tmp", "", "objects/a% objects"}},
		{"delete the newest", func() error { return f.delete("a/k", f.rows()[0].Version) }, []string{"", "", "", "versions/a%/k objects"}},
		{"delete the marker", func() error { return f.delete("a/k", f.rows()[0].Version) }, []string{"", "", "", "", "versions/a%/k objects/a% objects"}},
	} {
		moves = nil
		rec.take()
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if got := append(moves, strings.Join(rec.take(), " ")); !slices.Equal(got, c.want) {
			t.Errorf("%s: synced %q, want %q", c.name, got, c.want)
		}
	}
}

// TestSettingsThatChangeDuringAWriteCountForIt changes them when the write has been
// staged, which is at the nth sync of a temporary file.
func TestSettingsThatChangeDuringAWriteCountForIt(t *testing.T) {
	for name, c := range map[string]struct {
		nth   int
		write func(inBucket) error
		view  string
	}{
		"put":      {1, func(f inBucket) error { return f.try("key", bytes.Repeat([]byte("changed"), 1<<18)) }, "key changedchangedchange 0"},
		"complete": {3, func(f inBucket) error { return f.parted("key", []byte("changed")) }, "key changed 0"},
		"delete":   {1, func(f inBucket) error { return f.delete("key", "") }, "key marker"},
	} {
		for _, change := range [][2]backends.Versioning{{off, enabled}, {off, suspended}, {enabled, suspended}, {suspended, enabled}} {
			if name == "delete" && change[0] == off {
				continue // nothing is staged
			}
			f := within(t, open(t, quickDir(t)))
			f.set(change[0])
			f.put("key", []byte("before"))
			syncs := 0
			f.fsync = func(file *os.File) error {
				if !strings.HasPrefix(file.Name(), f.path("tmp")) {
					return nil
				}
				if syncs++; syncs == c.nth {
					f.set(change[1])
				}
				return nil
			}
			err := c.write(f)
			f.fsync = noSync
			want := []string{c.view}
			if change[1] == suspended {
				want[0] = strings.Replace(want[0], "key", "key null", 1)
			}
			switch {
			case change[0] == enabled:
				want = append(want, "key before 0")
			case change[1] == enabled:
				want = append(want, "key null before 0")
			}
			if got := f.view(); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s while %q became %q: %v, %q, want %q", name, change[0], change[1], err, got, want)
			}
			f.vanish()
			f.Close()
		}
	}
}

func TestWhoComesLastIsTheNewestHoweverLongTheyWrote(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.set(enabled)
	calls := 0
	f.fsync = func(*os.File) error {
		if calls++; calls == 1 {
			f.put("key", []byte("meanwhile"))
		}
		return nil
	}
	f.put("key", []byte("last"))
	f.fsync = noSync
	if got, want := f.view(), []string{"key last 0", "key meanwhile 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheSweeperKeepsThePartsOfAllVersions(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.set(enabled)
	first, whole := f.multi("key", "first")
	second, _ := f.multi("key", "second")
	if err := f.delete("key", ""); err != nil {
		t.Fatal(err)
	}
	for _, up := range []backends.UploadID{first, second} {
		age(t, f.partsPath("bucket", up.ID))
	}
	f.sweep(t.Context())
	rows := f.rows()
	if _, data, err := f.read("key", rows[2].Version); err != nil || data != string(whole) {
		t.Fatalf("the oldest version has %d bytes, %v", len(data), err)
	}
	if err := f.delete("key", rows[2].Version); err != nil {
		t.Fatal(err)
	}
	if exists(f.partsPath("bucket", first.ID)) || !exists(f.partsPath("bucket", second.ID)) {
		t.Error("parts of what is deleted are left, or those of the other version are gone")
	}
}

func TestANoteCountsForItsOwnObjectOnly(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.put("key", []byte("x"))
	if _, err := f.SetTags(t.Context(), f.id("key"), backends.Tags{"a": "1"}); err != nil {
		t.Fatal(err)
	}
	path := f.slot("bucket", "key").notePath(backends.NullVersion)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.put("key", []byte("y"))
	if exists(path) {
		t.Error("the note of what was replaced is left")
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	if tags, _, err := f.Tags(t.Context(), f.id("key")); len(tags) != 0 || err != nil {
		t.Errorf("tags of another object: %v, %v", tags, err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Tags(t.Context(), f.id("key")); !errors.Is(err, errDamaged) {
		t.Errorf("a damaged note: %v", err)
	}
	f.put("key", []byte("z"))
	f.holds("key", []byte("z"))
}

func TestOnlyVersionsHaveTheNamesOfVersions(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.set(enabled)
	f.put("key", []byte("old"))
	f.put("key", []byte("new"))
	f.put("other", []byte("other"))
	f.put("other", []byte("other"))
	of := func(key string, n int) string {
		return f.rows()[map[string]int{"key": 0, "other": 2}[key]+n].Version
	}
	old, other := of("key", 1), of("other", 1)
	for _, version := range []string{"../key/" + old, "../other/" + other, other, ".", "..", "nul", old[:31], strings.ToUpper(old) + "\x00"} {
		if _, _, err := f.read("key", version); !errors.Is(err, backends.ErrVersionNotFound) {
			t.Errorf("reading version %q: %v", version, err)
		}
		if err := f.delete("key", version); err != nil {
			t.Errorf("deleting version %q: %v", version, err)
		}
	}
	if got := len(f.rows()); got != 4 {
		t.Errorf("%d versions are left, want 4", got)
	}
	dir := f.slot("bucket", "key").older()
	moved := "0" + old[1:]
	if err := errors.Join(os.Rename(dir+"/"+old, dir+"/"+moved), os.WriteFile(dir+"/foreign", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.read("key", moved); !errors.Is(err, errDamaged) {
		t.Errorf("a version under another's name: %v", err)
	}
}

func TestADamagedObjectHidesNoVersion(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.set(enabled)
	f.put("key", []byte("old"))
	old := f.rows()[0].Version
	f.put("key", []byte("new"))
	if err := os.WriteFile(f.objects("bucket")+"/key", []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.read("key", ""); !errors.Is(err, errDamaged) {
		t.Errorf("the newest: %v", err)
	}
	if _, data, err := f.read("key", old); data != "old" || err != nil {
		t.Errorf("the version before: %q, %v", data, err)
	}
	if _, _, err := f.read("key", backends.NullVersion); !errors.Is(err, errDamaged) {
		t.Errorf("a version that may be the damaged one: %v", err)
	}
	f.put("key", []byte("newer"))
	if got, want := f.view(), []string{"key newer 0", "key old 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDamagedSettingsAreAnError(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.put("key", []byte("x"))
	f.set(enabled)
	path := f.Store.bucket("bucket") + "/" + settingsName
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := f.Versioning(t.Context(), "bucket")
	for what, err := range map[string]error{
		"reading them": err, "putting": f.try("key", nil), "deleting": f.delete("key", ""),
		"setting": f.SetVersioning(t.Context(), "bucket", enabled),
	} {
		if !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestCopiesLieAsTheirSourcesDo wants whole blocks of a copy to be whole blocks of
// its source, so that a file system which can share them does.
func TestCopiesLieAsTheirSourcesDo(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	f.put("source", data)
	src, err := readRecord(f.objects("bucket") + "/source")
	if err != nil {
		t.Fatal(err)
	}
	up, err := f.CreateUpload(t.Context(), "bucket", "parts", backends.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		name string
		at   backends.Range
	}{
		{"x", backends.Range{Length: -1}},
		{"a longer name than that of the source", backends.Range{Length: -1}},
		{"part", backends.Range{Offset: 5000, Length: 100000}},
		{"part", backends.Range{Offset: 1, Length: 4096}},
	} {
		path := f.objects("bucket") + "/" + c.name
		if c.name == "part" {
			_, err = f.CopyPart(t.Context(), up, i+1, f.id("source"), &c.at, src.ETag)
			path = f.partPath("bucket", up.ID, i+1)
		} else {
			_, err = f.Copy(t.Context(), f.id("source"), f.id(c.name), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		dst, err := readRecord(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := dst.start - src.start - c.at.Offset; d%block != 0 {
			t.Errorf("%s of %+v is %d bytes off", c.name, c.at, d)
		}
		b, err := os.ReadFile(path)
		want := data[c.at.Offset:][:cmp.Or(max(c.at.Length, 0), int64(len(data)))]
		if err != nil || !bytes.Equal(b[dst.start:], want) {
			t.Errorf("%s of %+v: %d other bytes, %v", c.name, c.at, len(b), err)
		}
	}
}

func TestACancelledCopyLeavesNothing(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.put("source", make([]byte, 1<<20))
	src, err := f.open(t.Context(), f.id("source"))
	if err != nil {
		t.Fatal(err)
	}
	body, _, err := f.source("bucket", src, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = f.stageFile(func(file *os.File) error {
		cancel()
		return copyWhole(ctx, file, header{Size: 1 << 20}, body)
	})
	if !errors.Is(err, context.Canceled) || len(names(t, f.path("tmp"))) != 0 {
		t.Errorf("got %v, left %q", err, names(t, f.path("tmp")))
	}
}

func FuzzSettings(f *testing.F) {
	text, err := json.Marshal(settings{enabled, backends.LockConfig{Enabled: true, Mode: backends.Governance, Days: 3}})
	if err != nil {
		f.Fatal(err)
	}
	b, err := frame(text)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		var c settings
		size, err := decode(b, &c)
		if err != nil && !errors.Is(err, errDamaged) || err == nil && size > len(b) {
			t.Errorf("%d bytes of %d, %v", size, len(b), err)
		}
	})
}
