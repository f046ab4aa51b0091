package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sign begins everything that is planted to be searched for: bodies, metadata and
// secrets. One search then finds any of them.
const sign = "QzPlanted7"

// marker is a new text that must not be seen where it does not belong.
func marker(what string) string { return sign + "-" + what + "-" + rand.Text()[:12] }

// needles are the forms in which a text would give itself away: as it is, in hex, and
// in base64 at each of the three places that it can have in it.
func needles(text string) [][]byte {
	out := [][]byte{[]byte(text), []byte(hex.EncodeToString([]byte(text)))}
	for shift := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + text))
		// The first and the last digit also hold bits of the neighbours.
		out = append(out, []byte(encoded[(shift*8+5)/6:len(encoded)-1]))
	}
	return out
}

// secrets are what must be seen nowhere: what was planted, the PINs of the token and
// the account at the backend.
func (w *world) secrets() [][]byte {
	w.t.Helper()
	out := needles(sign)
	for _, name := range []string{"pin", "so-pin"} {
		pin, err := os.ReadFile(filepath.Join(w.Home(), "token", name))
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, bytes.TrimSpace(pin))
	}
	for _, v := range w.cloud.env {
		if name, secret, _ := strings.Cut(v, "="); strings.HasSuffix(name, "SECRET_ACCESS_KEY") {
			out = append(out, []byte(secret))
		}
	}
	return out
}

// assertSealed searches all that the cloud holds.
func (w *world) assertSealed() {
	w.t.Helper()
	if n := w.searchFolder(w.cloud.dir, nil); n == 0 {
		w.t.Errorf("searching %q for secrets: there is nothing in it", w.cloud.dir)
	}
}

// assertDiscreet searches all that the product has logged, recorded and measured, and
// what it keeps at home other than the token. Names of objects and the id of the
// access key are no secrets; the secret access key is printed to the user, on stdout.
func (w *world) assertDiscreet() {
	w.t.Helper()
	metrics, err := w.Metrics(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for name, text := range map[string]string{"log": w.Stderr(), "metrics": metrics} {
		if len(text) == 0 {
			w.t.Errorf("the %s are empty", name)
		}
		w.search(name, strings.NewReader(text))
	}
	w.searchFolder(w.Home(), []string{filepath.Join(w.Home(), "token")})
}

// searchFolder returns the number of bytes that it has searched.
func (w *world) searchFolder(dir string, but []string) (total int64) {
	w.t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err): // it is a live system
			return nil
		case err != nil:
			return err
		case entry.IsDir() && contains(but, path):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		total += w.search(path, f)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return total
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func (w *world) search(name string, r io.Reader) int64 {
	w.t.Helper()
	total, found, err := search(r, w.secrets())
	if err != nil {
		w.t.Fatalf("searching %s: %v", name, err)
	}
	if found != nil {
		w.t.Errorf("%s holds %q, which must not be seen there", name, found)
	}
	return total
}

// search looks for the first of some texts, each shorter than the overlap of the
// pieces it reads, and says how many bytes it has read.
func search(r io.Reader, texts [][]byte) (total int64, found []byte, err error) {
	const overlap = 256
	buffer := make([]byte, 4<<20)
	kept := 0
	for {
		n, err := io.ReadFull(r, buffer[kept:])
		total += int64(n)
		piece := buffer[:kept+n]
		for _, text := range texts {
			if i := bytes.Index(piece, text); i >= 0 {
				return total, bytes.Clone(piece[i:min(len(piece), i+80)]), nil
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return total, nil, nil
		}
		if err != nil {
			return total, nil, err
		}
		kept = copy(buffer, piece[len(piece)-overlap:])
	}
}

func TestSearchFindsWhatIsPlanted(t *testing.T) {
	planted := marker("body")
	for _, tt := range []struct {
		name, text string
		want       bool
	}{
		{"as it is", planted, true},
		{"in hex", hex.EncodeToString([]byte(planted)), true},
		{"in base64", base64.StdEncoding.EncodeToString([]byte(planted)), true},
		{"in base64, one on", base64.StdEncoding.EncodeToString([]byte("x" + planted)), true},
		{"in base64url, two on", base64.URLEncoding.EncodeToString([]byte("xy" + planted)), true},
		{"not at all", strings.ToUpper(planted), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, before := range []int{0, 100, 4<<20 - 5, 4<<20 + 5} {
				_, found, err := search(strings.NewReader(strings.Repeat(".", before)+tt.text+"..."), needles(sign))
				if err != nil || (found != nil) != tt.want {
					t.Errorf("after %d bytes: got %q and %v, want found %t", before, found, err, tt.want)
				}
			}
		})
	}
}
