package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chatelaine/backends"
)

func noSync(*os.File) error { return nil }

// inBucket is a store with a bucket.
type inBucket struct {
	*testing.T
	*Store
	bucket string
}

func within(t *testing.T, s *Store) inBucket {
	t.Helper()
	if err := s.CreateBucket(t.Context(), "bucket"); err != nil && !errors.Is(err, backends.ErrBucketExists) {
		t.Fatal(err)
	}
	return inBucket{t, s, "bucket"}
}

func (f inBucket) id(key string) backends.ObjectID {
	return backends.ObjectID{Bucket: f.bucket, Key: key}
}

func (f inBucket) try(key string, data []byte) error {
	_, err := f.Put(f.Context(), f.id(key), backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}, nil)
	return err
}

func (f inBucket) put(key string, data []byte) {
	f.Helper()
	if err := f.try(key, data); err != nil {
		f.Fatal(err)
	}
}

func (f inBucket) get(key string) ([]byte, error) {
	o, err := f.Get(f.Context(), f.id(key), nil)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(o.Body)
	return data, errors.Join(err, o.Body.Close())
}

func (f inBucket) holds(key string, want []byte) {
	f.Helper()
	if got, err := f.get(key); err != nil || !bytes.Equal(got, want) {
		f.Fatalf("%q holds %d bytes, %v; want %d", key, len(got), err, len(want))
	}
}

// multi makes an object of two parts.
func (f inBucket) multi(key string, tail string) (backends.UploadID, []byte) {
	f.Helper()
	up, err := f.CreateUpload(f.Context(), f.bucket, key, backends.Attributes{})
	if err != nil {
		f.Fatal(err)
	}
	data := [][]byte{bytes.Repeat([]byte("0123456789abcde\n"), backends.MinPart/16), []byte(tail)}
	var parts []backends.Part
	for i, d := range data {
		p, err := f.PutPart(f.Context(), up, i+1, backends.Body{Reader: bytes.NewReader(d), Size: int64(len(d))})
		if err != nil {
			f.Fatal(err)
		}
		parts = append(parts, p)
	}
	if _, err := f.Complete(f.Context(), up, parts, backends.Conditions{}); err != nil {
		f.Fatal(err)
	}
	return up, bytes.Join(data, nil)
}

// quickDir is a folder in memory where there is one, for tests that make many files
// and do not mind where.
func quickDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "filestore")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	got, err := readNames(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	return got
}

func TestNewRefusesFoldersThatAreNotAFilestore(t *testing.T) {
	foreign, other, plain := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "file")
	for path, text := range map[string]string{foreign + "/precious": "x", other + "/FORMAT": "chatelaine filestore 9\n", plain: "x"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, root := range []string{"", foreign, other, plain, "/" + strings.Repeat("x/", 500)} {
		if s, err := New(Config{Root: root}); err == nil {
			s.Close()
			t.Errorf("%.40q was taken", root)
		}
	}
	if got := names(t, foreign); !slices.Equal(got, []string{"precious"}) {
		t.Errorf("a refused folder holds %q", got)
	}
}

func TestManyProcessesCanClaimANewFolderAtOnce(t *testing.T) {
	root := t.TempDir() + "/new/store"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := New(Config{Root: root})
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	wg.Wait()
}

func TestWhatWasPutIsThereAfterReopening(t *testing.T) {
	root := t.TempDir()
	f := within(t, open(t, root))
	f.put("a/key", []byte("data"))
	_, whole := f.multi("multi", "tail")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = within(t, open(t, root))
	defer f.Close()
	f.holds("a/key", []byte("data"))
	f.holds("multi", whole)
}

func TestBytesOnDiskAreThoseThatWerePut(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.put("dir/report.pdf", []byte("the sealed bytes"))
	got, err := os.ReadFile(f.objects("bucket") + "/dir%/report.pdf")
	if err != nil || !bytes.HasSuffix(got, []byte("}the sealed bytes")) || len(got) > 200 {
		t.Errorf("the file holds %q, %v", got, err)
	}
}

// syncs records what is synced, by the paths below the root.
type syncs struct {
	mu    sync.Mutex
	root  string
	paths []string
}

func (r *syncs) sync(f *os.File) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := strings.TrimPrefix(f.Name(), r.root+"/")
	if strings.HasPrefix(path, "tmp/") {
		path = "tmp"
	}
	r.paths = append(r.paths, strings.TrimPrefix(path, "buckets/bucket/"))
	return nil
}

func (r *syncs) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	paths := r.paths
	r.paths = nil
	return paths
}

// TestAnAnswerComesAfterEverythingIsSynced is what a kill -9 cannot show: the page
// cache survives it, and a power cut does not spare it.
func TestAnAnswerComesAfterEverythingIsSynced(t *testing.T) {
	root := t.TempDir()
	f := within(t, open(t, root))
	defer f.Close()
	rec := &syncs{root: root}
	f.fsync = rec.sync
	remove := func(key string) {
		if _, err := f.Delete(t.Context(), f.id(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"the file, its new folders and the folder above", func() { f.put("a/b/k", nil) }, "tmp objects/a%/b% objects/a% objects"},
		{"the file and its folder, which is known", func() { f.put("a/b/k2", nil) }, "tmp objects/a%/b%"},
		{"a folder that is new in one that is known", func() { f.put("a/c/k", nil) }, "tmp objects/a%/c% objects/a%"},
		{"the folder of what is deleted", func() { remove("a/b/k") }, "objects/a%/b%"},
		{"the folder of a folder that goes too", func() { remove("a/b/k2") }, "objects/a%"},
		{"nothing where nothing was", func() { remove("a/b/k2") }, ""},
		{"a folder that is new under an old name", func() { f.put("a/b/k", nil) }, "tmp objects/a%/b% objects/a%"},
	} {
		rec.take()
		c.do()
		if got := strings.Join(rec.take(), " "); got != c.want {
			t.Errorf("%s: synced %q, want %q", c.name, got, c.want)
		}
	}
}

func TestASyncThatFailsFailsThePut(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.put("key", []byte("before"))
	for cause, want := range map[error]error{syscall.ENOSPC: backends.ErrFull, syscall.EDQUOT: backends.ErrFull, syscall.EIO: backends.ErrUnavailable} {
		f.fsync = func(*os.File) error { return &os.PathError{Op: "sync", Path: "x", Err: cause} }
		if err := f.try("key", []byte("after")); !errors.Is(err, want) || !errors.Is(err, cause) {
			t.Errorf("%v: got %v, want %v", cause, err, want)
		}
		f.holds("key", []byte("before"))
		if got := names(t, f.path("tmp")); len(got) != 0 {
			t.Errorf("%v: left over: %q", cause, got)
		}
	}
	f.fsync = func(file *os.File) error {
		if strings.HasSuffix(file.Name(), "/objects") {
			return syscall.EIO
		}
		return nil
	}
	if err := f.try("new", []byte("x")); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("the folder was not synced: got %v", err)
	}
}

// TestAFullDiskIsErrFull fills a real file system.
func TestAFullDiskIsErrFull(t *testing.T) {
	root := t.TempDir()
	err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=8m")
	if errors.Is(err, unix.EPERM) {
		t.Skip("mounting a small tmpfs needs root; TestASyncThatFailsFailsThePut covers the mapping")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	f := within(t, open(t, root))
	defer f.Close()
	f.put("key", make([]byte, 1<<20))
	if err := f.try("key", make([]byte, 16<<20)); !errors.Is(err, backends.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if err := f.try("new", make([]byte, 16<<20)); !errors.Is(err, backends.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if _, err := f.get("new"); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("a part of it is visible: %v", err)
	}
	if got := names(t, f.path("tmp")); len(got) != 0 {
		t.Errorf("left over: %q", got)
	}
	f.holds("key", make([]byte, 1<<20))
	f.put("new", make([]byte, 5<<20))
}

func TestDamagedFilesAreErrorsAndCanBeReplaced(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	path := f.objects("bucket") + "/key"
	for name, damage := range map[string]func(b []byte) []byte{
		"shorter":        func(b []byte) []byte { return b[:len(b)-1] },
		"longer":         func(b []byte) []byte { return append(b, 0) },
		"empty":          func([]byte) []byte { return nil },
		"another header": func(b []byte) []byte { b[30] ^= 1; return b },
		"another magic":  func(b []byte) []byte { b[0] ^= 1; return b },
		"another length": func(b []byte) []byte { b[8] = 0xff; return b },
	} {
		f.put("key", []byte("some data"))
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, damage(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.get("key"); !errors.Is(err, errDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := f.List(t.Context(), "bucket", nil); !errors.Is(err, errDamaged) {
			t.Errorf("%s: listing: got %v", name, err)
		}
	}
	f.put("key", []byte("anew"))
	f.holds("key", []byte("anew"))
	f.put("other", []byte("x"))
	if err := os.Rename(f.objects("bucket")+"/other", path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.get("key"); !errors.Is(err, errDamaged) {
		t.Errorf("the file of another key: got %v", err)
	}
}

func TestADamagedTableOfPartsIsAnError(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.multi("key", "tail")
	path := f.objects("bucket") + "/key"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The last row ends with the low byte of the size; that of the number is 8 before.
	for name, fromEnd := range map[string]int{"size": 1, "number": 9} {
		damaged := slices.Clone(b)
		damaged[len(b)-fromEnd] ^= 8
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.get("key"); !errors.Is(err, errDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	up, err := readRecord(path)
	if err != nil {
		t.Fatal(err)
	}
	swapped := f.partPath("bucket", up.Upload, 2)
	if err := os.Rename(f.partPath("bucket", up.Upload, 1), swapped); err != nil {
		t.Fatal(err)
	}
	if _, err := f.get("key"); err == nil {
		t.Error("a part that is not there was read")
	}
	if o, err := f.Get(t.Context(), f.id("key"), &backends.GetOptions{Range: &backends.Range{Offset: -2}}); err != nil {
		t.Error(err)
	} else if _, err := io.ReadAll(o.Body); !errors.Is(err, errDamaged) {
		t.Errorf("a part of another size: got %v", err)
	}
}

func TestAReaderThatCameTooLateDoesNotHoldTheParts(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	f.multi("key", "tail")
	rec, err := openRecord(f.objects("bucket") + "/key")
	if err != nil {
		t.Fatal(err)
	}
	defer rec.close()
	f.put("key", []byte("other"))
	if held, err := rec.hold(); held || err != nil {
		t.Errorf("held: %v, %v", held, err)
	}
	f.holds("key", []byte("other"))
}

func FuzzDecodeHeader(f *testing.F) {
	b, err := header{Key: "key", Size: 3, Metadata: map[string]string{"a": "b"}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := decodeHeader(b)
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Error(err)
			}
			return
		}
		again, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		if h2, _, err := decodeHeader(again); err != nil || fmt.Sprint(h2) != fmt.Sprint(h) || n > len(b) {
			t.Errorf("%+v comes back as %+v, %v", h, h2, err)
		}
	})
}

func TestPartsAreKeptForReadersAndRemovedByTheLast(t *testing.T) {
	for name, end := range map[string]func(f inBucket){
		"replaced": func(f inBucket) { f.put("key", []byte("other")) },
		"deleted": func(f inBucket) {
			if _, err := f.Delete(f.Context(), f.id("key"), nil); err != nil {
				f.Fatal(err)
			}
		},
		"completed anew": func(f inBucket) { f.multi("key", "another tail") },
	} {
		t.Run(name, func(t *testing.T) {
			f := within(t, open(t, t.TempDir()))
			defer f.Close()
			up, whole := f.multi("key", "tail")
			var readers []*backends.Object
			for range 2 {
				o, err := f.Get(t.Context(), f.id("key"), nil)
				if err != nil {
					t.Fatal(err)
				}
				readers = append(readers, o)
			}
			end(f)
			for _, o := range readers {
				if !exists(f.partsPath("bucket", up.ID)) {
					t.Fatal("the parts went while they were read")
				}
				if got, err := io.ReadAll(o.Body); err != nil || !bytes.Equal(got, whole) {
					t.Errorf("%d bytes, %v; want %d", len(got), err, len(whole))
				}
				if err := o.Body.Close(); err != nil {
					t.Error(err)
				}
			}
			if exists(f.partsPath("bucket", up.ID)) {
				t.Error("the parts outlived their last reader")
			}
		})
	}
}

func TestBodiesWriteThemselvesToo(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	_, whole := f.multi("multi", "tail")
	f.put("single", whole)
	for _, key := range []string{"multi", "single"} {
		for _, r := range []*backends.Range{nil, {Offset: 10, Length: 20}, {Offset: backends.MinPart - 2, Length: 4}, {Offset: -4}} {
			o, err := f.Get(t.Context(), f.id(key), &backends.GetOptions{Range: r})
			if err != nil {
				t.Fatal(err)
			}
			var readFrom, written bytes.Buffer
			n, err := o.Body.(io.WriterTo).WriteTo(struct{ io.Writer }{&written})
			if err != nil || n != o.Range.Length || !bytes.Equal(written.Bytes(), whole[o.Range.Offset:][:n]) {
				t.Errorf("%s, %+v: %d bytes, %v", key, r, n, err)
			}
			o.Body.Close()
			if o, err = f.Get(t.Context(), f.id(key), &backends.GetOptions{Range: r}); err != nil {
				t.Fatal(err)
			}
			if n, err := o.Body.(io.WriterTo).WriteTo(&readFrom); err != nil || !bytes.Equal(readFrom.Bytes(), written.Bytes()) {
				t.Errorf("%s, %+v, by ReadFrom: %d bytes, %v", key, r, n, err)
			}
			o.Body.Close()
		}
	}
}

// age makes a file look as old as what a process has left that died long ago.
func age(t *testing.T, paths ...string) {
	t.Helper()
	old := time.Now().Add(-48 * time.Hour)
	for _, path := range paths {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheSweeperTakesLeftoversAndLeavesWhatIsInUse(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	live, err := f.stage(t.Context(), header{}, backends.Body{})
	if err != nil {
		t.Fatal(err)
	}
	defer live.discard()
	kept, _ := f.multi("kept", "x")
	gone, _ := f.multi("gone", "x")
	fresh, _ := f.multi("fresh", "x")
	running, err := f.CreateUpload(t.Context(), "bucket", "running", backends.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/tmp/dead", "/tmp/young"} {
		if err := os.WriteFile(f.root+path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/tmp/old-1", "/tmp/new-1", "/tmp/new-2", "/buckets/bucket/parts/half"} {
		if err := os.MkdirAll(f.root+path+"/x", 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"gone", "fresh"} { // as if a process had died after it unlinked the object
		if err := os.Remove(f.objects("bucket") + "/" + key); err != nil {
			t.Fatal(err)
		}
	}
	parts := func(id backends.UploadID) string { return f.partsPath("bucket", id.ID) }
	age(t, live.file.Name(), f.path("tmp/dead"), f.path("tmp/new-1"), parts(kept), parts(gone), parts(running), f.partsPath("bucket", "half"))
	f.sweep(t.Context())
	for path, want := range map[string]bool{
		live.file.Name(): true, f.path("tmp/young"): true, f.path("tmp/new-2"): true, parts(kept): true, parts(fresh): true, parts(running): true,
		f.path("tmp/dead"): false, f.path("tmp/old-1"): false, f.path("tmp/new-1"): false, parts(gone): false, f.partsPath("bucket", "half"): false,
	} {
		if exists(path) != want {
			t.Errorf("%s is there: %v, want %v", path, !want, want)
		}
	}
}

// TestACompleteThatDiedHalfWayIsFinished has the state between the two steps of a
// Complete: the object is there and so is the upload.
func TestACompleteThatDiedHalfWayIsFinished(t *testing.T) {
	for name, touch := range map[string]func(f inBucket, up backends.UploadID) error{
		"by a part": func(f inBucket, up backends.UploadID) error {
			_, err := f.PutPart(f.Context(), up, 1, backends.Body{})
			return err
		},
		"by another Complete": func(f inBucket, up backends.UploadID) error {
			p, err := f.part(up, 2)
			if err != nil {
				return err
			}
			_, err = f.Complete(f.Context(), up, []backends.Part{p}, backends.Conditions{})
			return err
		},
		"by an Abort":     func(f inBucket, up backends.UploadID) error { return f.Abort(f.Context(), up) },
		"by a list":       func(f inBucket, up backends.UploadID) error { _, err := f.ListParts(f.Context(), up, 0, 0); return err },
		"by the sweeper":  func(f inBucket, _ backends.UploadID) error { f.sweep(f.Context()); return backends.ErrUploadNotFound },
		"by reopening it": func(f inBucket, _ backends.UploadID) error { return errors.Join(backends.ErrUploadNotFound, reopen(f)) },
	} {
		t.Run(name, func(t *testing.T) {
			f := within(t, open(t, t.TempDir()))
			defer f.Close()
			up, whole := f.multi("key", "tail")
			marker := f.uploadPath("bucket", up.ID)
			if err := os.Link(f.partsPath("bucket", up.ID)+"/"+noteName, marker); err != nil {
				t.Fatal(err)
			}
			if err := touch(f, up); !errors.Is(err, backends.ErrUploadNotFound) {
				t.Errorf("got %v, want ErrUploadNotFound", err)
			}
			if exists(marker) {
				t.Error("the upload is still there")
			}
			f.holds("key", whole)
		})
	}
}

// reopen opens the store once more and waits for its sweeper.
func reopen(f inBucket) error {
	s, err := New(Config{Root: f.root})
	if err != nil {
		return err
	}
	s.sweeper.Wait()
	return s.Close()
}

// TestABucketIsNotDeletedUnderAPut has two stores on one folder, as two processes
// have, one of which deletes the bucket and makes it anew.
func TestABucketIsNotDeletedUnderAPut(t *testing.T) {
	root := t.TempDir()
	a, b := within(t, open(t, root)), within(t, open(t, root))
	defer a.Close()
	defer b.Close()
	a.fsync, b.fsync = noSync, noSync
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := b.DeleteBucket(t.Context(), "bucket"); err == nil {
				err = b.CreateBucket(t.Context(), "bucket")
				if err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, backends.ErrBucketNotEmpty) {
				t.Error(err)
			}
		}
	})
	for i := range 300 {
		key := fmt.Sprintf("x/%d", i%3)
		if err := a.try(key, []byte("data")); errors.Is(err, backends.ErrBucketNotFound) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		a.holds(key, []byte("data"))
		if _, err := a.Delete(t.Context(), a.id(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
}

// TestABucketIsNotDeletedBetweenTheCheckAndTheRenameOfAPut holds the lock that a Put
// holds then, and puts.
func TestABucketIsNotDeletedBetweenTheCheckAndTheRenameOfAPut(t *testing.T) {
	root := t.TempDir()
	a, b := within(t, open(t, root)), within(t, open(t, root))
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	err := a.locks.with("bucket", "key", func() error {
		go func() { done <- b.DeleteBucket(context.Background(), "bucket") }()
		select {
		case err := <-done:
			return fmt.Errorf("deleting did not wait for the lock: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
		plant(t, a, []string{"key"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, backends.ErrBucketNotEmpty) {
		t.Errorf("got %v, want ErrBucketNotEmpty", err)
	}
}

// TestPagesOfALargeBucketReadWhatTheyShow counts the names that are read for each
// page of 100,000 keys: those of the folders that the page is in.
func TestPagesOfALargeBucketReadWhatTheyShow(t *testing.T) {
	f := within(t, open(t, quickDir(t)))
	defer f.Close()
	const folders, each, flat = 500, 100, 50000
	keys := make([]string, 0, folders*each+flat)
	for i := range flat {
		keys = append(keys, fmt.Sprintf("flat/%06d", i))
	}
	for i := range folders * each {
		keys = append(keys, fmt.Sprintf("tree/%03d/%03d", i/each, i%each))
	}
	plant(t, f, keys)
	began := time.Now()
	o, got, pages := backends.ListOptions{}, 0, 0
	for more := true; more; pages++ {
		c := f.cursor(f.objects("bucket"), o.Prefix, o.Delimiter)
		page, err := backends.ListPage(t.Context(), c, &o)
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		for _, entries := range c.folders {
			read += len(entries)
		}
		if inTree := pages > flat/1000; inTree && read > folders+12*each+2 || read > flat+folders+12*each+2 {
			t.Fatalf("page %d read %d names", pages, read)
		}
		for i, e := range page.Entries {
			if e.Key != keys[got+i] {
				t.Fatalf("page %d: %q, want %q", pages, e.Key, keys[got+i])
			}
		}
		got, o.Token, more = got+len(page.Entries), page.Token, page.Truncated
	}
	if got != len(keys) {
		t.Errorf("listed %d of %d keys", got, len(keys))
	}
	t.Logf("%d keys in %d pages: %v", got, pages, time.Since(began))
}

// plant writes objects without syncing them, and their folders.
func plant(t *testing.T, f inBucket, keys []string) {
	t.Helper()
	for _, key := range keys {
		path := f.objects("bucket") + "/" + keyPath(key)
		b, err := header{Key: key, ETag: "e"}.encode()
		if err == nil {
			if err = os.WriteFile(path, b, 0o600); absent(err) {
				err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestACachedFolderIsReadAnewWhenItChanges(t *testing.T) {
	f := within(t, open(t, t.TempDir()))
	defer f.Close()
	keys := make([]string, worthCaching+10)
	for i := range keys {
		keys[i] = fmt.Sprintf("dir/%04d", i)
	}
	plant(t, f, keys)
	dir := f.objects("bucket") + "/dir%"
	changed := func(at time.Time) {
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		page, err := f.List(t.Context(), "bucket", nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Entries)
	}
	changed(time.Now().Add(time.Minute))
	if got := count(); got != len(keys) || f.names.entries != 0 {
		t.Fatalf("listed %d, cached %d of a folder that is changing", got, f.names.entries)
	}
	changed(time.Now().Add(-time.Minute))
	if got := count(); got != len(keys) || f.names.entries != len(keys) {
		t.Fatalf("listed %d, cached %d; want %d", got, f.names.entries, len(keys))
	}
	f.put("dir/new", nil)
	if got := count(); got != len(keys)+1 {
		t.Errorf("listed %d after a put, want %d", got, len(keys)+1)
	}
	if _, err := f.Delete(t.Context(), f.id("dir/new"), nil); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != len(keys) {
		t.Errorf("listed %d after a delete, want %d", got, len(keys))
	}
}
