package filestore

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"chatelaine/backends/backendtest"
)

// checkName wants a key's path to be safe, and to lead back to the key.
func checkName(t *testing.T, key string) {
	t.Helper()
	got, path := "", keyPath(key)
	names := strings.Split(path, "/")
	for i, name := range names {
		e, ok := parseName(name)
		if !ok || (e.kind == file) != (i == len(names)-1) || e.name() != name {
			t.Fatalf("key %q: name %q is %+v, %v", key, name, e, ok)
		}
		if len(name) > 255 || name == "" || name[0] == '.' || strings.ContainsAny(name, "\x00\n") {
			t.Fatalf("key %q: name %q is not safe", key, name)
		}
		got += e.text
	}
	if got != key {
		t.Fatalf("key %q comes back from %q as %q", key, path, got)
	}
	if len(path) > 4096-maxRoot-200 {
		t.Fatalf("key %.40q…: a path of %d bytes", key, len(path))
	}
}

func TestKeysComeBackFromTheirPaths(t *testing.T) {
	for _, key := range backendtest.OddKeys() {
		checkName(t, key)
	}
	for _, worst := range []string{"\x01", "\x01/", "/", "%"} {
		checkName(t, strings.Repeat(worst, 1024/len(worst)))
	}
}

func FuzzKeysComeBackFromTheirPaths(f *testing.F) {
	f.Add("a/../b//%2F.")
	f.Add(strings.Repeat("x", 237) + "%/" + strings.Repeat("y", 238))
	f.Fuzz(func(t *testing.T, key string) {
		if key != "" && len(key) <= 1024 {
			checkName(t, key)
		}
	})
}

func FuzzNamesAreParsedOnlyInTheOneFormThatWeWrite(f *testing.F) {
	for _, name := range []string{"a", "a%", "a%+", "%_", "%", "%2F%", "%41", ".x", "%2Ex"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if e, ok := parseName(name); ok && e.name() != name && !strings.ContainsAny(name, "/\x00") {
			t.Errorf("name %q is %+v, which is written %q", name, e, e.name())
		}
	})
}

func TestForeignNamesAreNotOurs(t *testing.T) {
	for _, name := range []string{"", ".nfs0001", "%2f", "%41", "%2", "%zz", "%+", "a%_", ".%", "a\nb"} {
		if e, ok := parseName(name); ok && e.name() == name {
			t.Errorf("%q is taken for %+v", name, e)
		}
	}
}

// randomKey has long runs of few characters, so that keys share prefixes, segments
// and pieces.
func randomKey(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(4) {
		c := []string{"a", "/", "-", "%", ".", "b", "\x01"}[r.IntN(7)]
		b.WriteString(strings.Repeat(c, 1+r.IntN(2)*r.IntN(3)+r.IntN(2)*r.IntN(2)*(76+r.IntN(170))))
	}
	return b.String()[:min(b.Len(), 1024)]
}

func TestTheWalkIsInTheOrderOfTheKeys(t *testing.T) {
	s := open(t, quickDir(t))
	defer s.Close()
	s.fsync = noSync
	f := within(t, s)
	r := rand.New(rand.NewPCG(1, 2))
	var keys []string
	for range 800 {
		keys = append(keys, randomKey(r))
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for _, i := range r.Perm(len(keys)) {
		f.put(keys[i], nil)
	}
	c := s.cursor(s.objects(f.bucket), "", "")
	for i, key := range keys {
		for _, from := range []string{key, key[:len(key)-1], key[:len(key)/2] + "\xff", key + "\x00", key + "-"} {
			want := slices.IndexFunc(keys, func(k string) bool { return k >= from })
			got, ok, err := c.Ceil(from)
			if err != nil || ok != (want >= 0) || ok && got != keys[want] {
				t.Fatalf("key %d, from %q: %q, %v, %v; want number %d", i, from, got, ok, err, want)
			}
		}
	}
}
