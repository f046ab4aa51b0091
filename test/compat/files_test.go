package compat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// sizes are those of the files that clients store, besides the big one: around the
// seams of chunks and parts.
func sizes() []int64 {
	return []int64{0, 1, 16383, 16384, 16385, 1 << 20, 5<<20 + 1, 8 << 20, 8<<20 + 1}
}

// bigFor is the size of the big file: 300 MB go through one cloud.
func bigFor(cloud string) int64 {
	if cloud != "minio" {
		return 20_000_000
	}
	return 300_000_000
}

// newFolder makes a folder with a file of each size.
func newFolder(t *testing.T, big int64) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "files")
	for i, size := range append(sizes(), big) {
		writeFile(t, filepath.Join(dir, "some", fmt.Sprintf("%d bytes.bin", size)), uint64(i), size)
	}
	for i, name := range []string{"plus+sign", "hash#tag", "Ünïcödé-日本語", "a&b=c", "deep/er/still/file", "percent%41"} {
		writeFile(t, filepath.Join(dir, filepath.FromSlash(name)), uint64(100+i), int64(200+i))
	}
	return dir
}

func writeFile(t *testing.T, path string, seed uint64, size int64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	copyTo(t, path, content(seed, size), size)
}

// copyTo writes a file of as many bytes as src has, at most limit.
func copyTo(t *testing.T, path string, src io.Reader, limit int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.LimitReader(src, limit)); err != nil {
		t.Fatal(err)
	}
}

// content yields bytes that depend on the seed alone and do not repeat.
func content(seed uint64, size int64) io.Reader {
	key := [32]byte{31: 9}
	binary.BigEndian.PutUint64(key[:8], seed)
	return io.LimitReader(rand.NewChaCha8(key), size)
}

// sizesIn are the sizes of all files below a folder.
func sizesIn(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	found := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		found[filepath.ToSlash(name)] = info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// assertSizes compares a listing with a folder.
func assertSizes(t *testing.T, got map[string]int64, dir string) {
	t.Helper()
	want := sizesIn(t, dir)
	for name, size := range want {
		if n, ok := got[name]; !ok || n != size {
			t.Errorf("%q: got size %d (there: %t), want %d", name, n, ok, size)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d names, want %d", len(got), len(want))
	}
}

// assertSame compares two folders byte for byte.
func assertSame(t *testing.T, got, want string) {
	t.Helper()
	assertSizes(t, sizesIn(t, got), want)
	for name := range sizesIn(t, want) {
		if err := sameFile(filepath.Join(got, name), filepath.Join(want, name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func sameFile(got, want string) error {
	a, err := os.Open(got)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(want)
	if err != nil {
		return err
	}
	defer b.Close()
	return sameBytes(a, b)
}

// sameBytes compares two streams to their ends.
func sameBytes(got, want io.Reader) error {
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(a)) {
		n, errA := io.ReadFull(got, a)
		m, errB := io.ReadFull(want, b)
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("comparing bytes from %d on: %w", at, err)
			}
		}
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("the bytes from %d on differ: got %d of them, want %d", at, n, m)
		}
		if errA != nil || errB != nil {
			return nil
		}
	}
}

func TestSameBytesTellsADifference(t *testing.T) {
	whole, err := io.ReadAll(content(1, 3<<20))
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(whole)
	changed[2<<20+7] ^= 1
	for name, other := range map[string][]byte{
		"changed": changed, "short": whole[:3<<20-1], "a block short": whole[:2<<20], "long": append(bytes.Clone(whole), 0),
	} {
		if err := sameBytes(bytes.NewReader(other), bytes.NewReader(whole)); err == nil {
			t.Errorf("%s: no difference found", name)
		}
	}
	if err := sameBytes(bytes.NewReader(whole), bytes.NewReader(whole)); err != nil {
		t.Error(err)
	}
}
