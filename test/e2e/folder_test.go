package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// folder is a folder of files on the client's side. Each file that is long enough
// holds a marker.
type folder struct {
	dir   string
	sizes map[string]int64 // by slash-separated path
}

// oddNames are names that some layer may mistake for something else.
func oddNames() []string {
	return []string{
		"with space.txt", "plus+sign", "percent%41", "percent%2Fslash", "hash#tag", "question?mark", "a&b=c;d",
		"quote'single", "tilde~", "(parens)", "star*", "at@colon:", "comma,dollar$", "exclaim!", "Ünïcödé-日本語-😀",
		"UPPER", "upper", "trailing.", ".hidden", "deep/er/than/that/file", "a", "a-b", "a.b/c", "[brackets]{braces}",
	}
}

// newFolder writes files of many names and sizes, one of them big bytes long.
func newFolder(t *testing.T, big int64) *folder {
	t.Helper()
	f := &folder{dir: filepath.Join(t.TempDir(), "files"), sizes: map[string]int64{}}
	for i := range 40 {
		f.write(t, fmt.Sprintf("logs/2026/%03d.log", i), int64(100+i*37))
	}
	for i, name := range oddNames() {
		f.write(t, name, int64(200+i))
	}
	for _, size := range []int64{0, 1, 16383, 16384, 16385, 1<<20 - 1, 1 << 20, 5<<20 + 1} {
		f.write(t, fmt.Sprintf("sizes/%d.bin", size), size)
	}
	f.write(t, "big/file.bin", big)
	return f
}

func (f *folder) write(t *testing.T, name string, size int64) {
	t.Helper()
	path := filepath.Join(f.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, content(uint64(len(f.sizes)), size)); err != nil {
		t.Fatal(err)
	}
	f.sizes[name] = size
}

// content yields size bytes that depend on the seed alone, with a marker at the
// beginning of each MiB.
func content(seed uint64, size int64) io.Reader {
	return io.LimitReader(&generator{seed: seed}, size)
}

// contentBytes is content, whole.
func contentBytes(seed uint64, size int) []byte {
	b, err := io.ReadAll(content(seed, int64(size)))
	if err != nil {
		panic(err) // a generator does not fail
	}
	return b
}

// generator makes content in blocks of 1 MiB.
type generator struct {
	seed, block uint64
	left        []byte
}

func (g *generator) Read(p []byte) (int, error) {
	if len(g.left) == 0 {
		g.left = make([]byte, 1<<20)
		key := [32]byte{31: 7}
		binary.BigEndian.PutUint64(key[:8], g.seed)
		binary.BigEndian.PutUint64(key[8:16], g.block)
		source := rand.NewChaCha8(key)
		_, _ = source.Read(g.left)
		copy(g.left, fmt.Sprintf("%s-body-%d-%d-", sign, g.seed, g.block))
		g.block++
	}
	n := copy(p, g.left)
	g.left = g.left[n:]
	return n, nil
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

// assertSame compares another folder with this one, byte for byte.
func (f *folder) assertSame(t *testing.T, dir string) {
	t.Helper()
	found := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		found[filepath.ToSlash(rel)] = info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	assertSizes(t, found, f.sizes)
	for name := range found {
		assertSameFile(t, filepath.Join(dir, filepath.FromSlash(name)), f.path(name))
	}
}

// assertSizes compares listings.
func assertSizes(t *testing.T, got, want map[string]int64) {
	t.Helper()
	for name, size := range want {
		if n, ok := got[name]; !ok || n != size {
			t.Errorf("%q: got size %d (there: %t), want %d", name, n, ok, size)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%q is there and should not be", name)
		}
	}
}

func assertSameFile(t *testing.T, got, want string) {
	t.Helper()
	a, err := os.Open(got)
	if err != nil {
		t.Error(err)
		return
	}
	defer a.Close()
	b, err := os.Open(want)
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	if err := sameBytes(a, b); err != nil {
		t.Errorf("%s: %v", got, err)
	}
}

// sameBytes compares two streams to their ends.
func sameBytes(got, want io.Reader) error {
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for offset := int64(0); ; offset += int64(len(a)) {
		n, errA := io.ReadFull(got, a)
		m, errB := io.ReadFull(want, b)
		if errA != nil && errA != io.EOF && errA != io.ErrUnexpectedEOF {
			return errA
		}
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("the bytes differ within %d to %d: got %d, want %d", offset, offset+int64(len(a)), n, m)
		}
		if errA != nil || errB != nil {
			return nil
		}
	}
}

// middle reads some bytes of a file.
func (f *folder) middle(t *testing.T, name string, first, last int64) []byte {
	t.Helper()
	file, err := os.Open(f.path(name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, last-first+1)
	if _, err := file.ReadAt(b, first); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSameBytesTellsADifference(t *testing.T) {
	whole := contentBytes(1, 3<<20)
	changed := bytes.Clone(whole)
	changed[2<<20+7] ^= 1
	for name, other := range map[string][]byte{"changed": changed, "short": whole[:3<<20-1], "long": append(bytes.Clone(whole), 0)} {
		if err := sameBytes(bytes.NewReader(other), bytes.NewReader(whole)); err == nil {
			t.Errorf("%s: no difference found", name)
		}
	}
	if err := sameBytes(bytes.NewReader(whole), bytes.NewReader(whole)); err != nil {
		t.Error(err)
	}
}
