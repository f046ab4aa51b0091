package azurestore

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
)

func TestNamesAreOfSafeCharactersAndComeBack(t *testing.T) {
	for key, want := range map[string]string{
		"photos/2024/a.jpg": "photos/2024/a.-jpg",
		"..":                ".-.-",
		"a/":                "a/",
		"\x00":              "!-",
		",":                 "!g",
		"a_b":               "a^3b",
		"{":                 "~-",
		"\x7f":              "~3",
		"\u0080":            "~4-",
		"\U0010ffff":        "~qzzz",
	} {
		if got := encodeName(key); got != want {
			t.Errorf("%q is %q, want %q", key, got, want)
		}
	}
	for _, key := range backendtest.OddKeys() {
		name := encodeName(key)
		if strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(digits+"!./=^~", r) }) {
			t.Errorf("%.80q is %.80q", key, name)
		}
		if got, err := decodeName(name); err != nil || got != key {
			t.Errorf("%.80q comes back as %.80q, %v", key, got, err)
		}
	}
}

func TestEveryCharacterKeepsItsPlace(t *testing.T) {
	last := ""
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if 0xd800 <= r && r < 0xe000 {
			continue
		}
		name := encodeName(string(r))
		if name <= last || name >= reserved {
			t.Fatalf("%U is %q, behind %q", r, name, last)
		}
		if strings.HasPrefix(name, last) && last != "" {
			t.Fatalf("%U is %q, which begins with another character, %q", r, name, last)
		}
		last = name
	}
}

func TestForeignNamesAreNoKeys(t *testing.T) {
	for _, name := range []string{"a.jpg", "a.", "!", "!h", "a_b", "~", "~~u/x", "~z", "~4", "a b", "é", "%41", "=7"} {
		if key, err := decodeName(name); !errors.Is(err, errForeignName) {
			t.Errorf("%q is %q, %v", name, key, err)
		}
	}
}

func TestKeysThatAzureCannotHoldAreRefused(t *testing.T) {
	for key, want := range map[string]bool{
		strings.Repeat("a", 1024):       true,
		strings.Repeat(".", 512):        true,
		strings.Repeat(".", 513):        false,
		strings.Repeat("a/", 253):       true,
		strings.Repeat("a/", 254):       false,
		strings.Repeat("日", 256):        true,
		strings.Repeat("日", 257):        false,
		"":                              false,
		strings.Repeat("a", 1024) + "a": false,
	} {
		if _, err := blobName(key); (err == nil) != want || err != nil && !errors.Is(err, backends.ErrInvalidName) {
			t.Errorf("%.10q of %d: %v, want success: %v", key, len(key), err, want)
		}
	}
	for bucket, want := range map[string]bool{"abc": true, "a-b": true, "a.b": false, "a--b": false, "AB": false} {
		if err := checkContainer(bucket); (err == nil) != want && bucket != "abc" || bucket == "abc" && err != nil {
			t.Errorf("bucket %q: %v, want success: %v", bucket, err, want)
		}
	}
}

func TestMetadataNamesAreIdentifiers(t *testing.T) {
	for name, want := range map[string]string{"cho1": "cho1", "other-name": "other_2dname", "1a": "_31a", "a_b": "a_5fb", "x!": "x_21"} {
		if got := encodeMeta(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
		if got := decodeMeta(strings.ToUpper(want)); got != name {
			t.Errorf("%q comes back as %q, want %q", want, got, name)
		}
	}
	for _, foreign := range []string{markName, keyName, "a_b", "_", "x_4", "x_61"} {
		if got := decodeMeta(foreign); got != foreign {
			t.Errorf("%q, which is nobody's, is read as %q", foreign, got)
		}
	}
}

func FuzzNamesKeepOrderAndPrefixes(f *testing.F) {
	f.Add("a.b/c", "a/b", 3)
	f.Add("é\x00~", "日本\U0010ffff", 1)
	f.Fuzz(func(t *testing.T, a, b string, cut int) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) {
			return
		}
		if got, err := decodeName(encodeName(a)); err != nil || got != a {
			t.Errorf("%q comes back as %q, %v", a, got, err)
		}
		if strings.Compare(a, b) != strings.Compare(encodeName(a), encodeName(b)) {
			t.Errorf("%q and %q are in another order as names", a, b)
		}
		if cut >= 0 && cut <= len(a) && !strings.HasPrefix(encodeName(a), encodePrefix(a[:cut])) {
			t.Errorf("%q does not begin with the name of its prefix %q", a, a[:cut])
		}
	})
}

func FuzzDecodeNameTakesWhatEncodeNameMakes(f *testing.F) {
	for _, s := range []string{"a.-b", "~~u/x", "!", "^5~4-", "~qzzz", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if key, err := decodeName(name); err == nil && encodeName(key) != name {
			t.Errorf("%q is taken for %q, whose name is %q", name, key, encodeName(key))
		}
	})
}

func TestSortedKeysHaveSortedNames(t *testing.T) {
	keys := backendtest.OddKeys()
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = encodeName(key)
	}
	if !slices.IsSorted(names) {
		t.Error("the names of sorted keys are not sorted")
	}
}
