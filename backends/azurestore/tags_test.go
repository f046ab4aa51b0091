package azurestore

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"chatelaine/backends"
)

func TestTagsAreOfAzuresLettersAndComeBack(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "=",
		"a B9 +-./:_":         "a B9 +-./:_",
		"mail@example.org":    "mail=s-example.org",
		"a=b":                 "a=rxb",
		"größe":               "gr=5q=5Ue",
		"日":                   "=cr_",
		"\U0010ffff":          "=qzzz",
		"\x00{\x7f&%":         "=r-=-=3=ra=r_",
		"container/@1 = 100%": "container/=s-1 =rx 100=r_",
	} {
		got := encodeTag(text)
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
		if back := decodeTag(got); back != text {
			t.Errorf("%q comes back as %q", text, back)
		}
	}
}

func TestEveryCharacterOfATagComesBack(t *testing.T) {
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		if got := encodeTag(string(r)); decodeTag(got) != string(r) {
			t.Fatalf("%U is %q and comes back as %q", r, got, decodeTag(got))
		}
	}
}

func TestTagsThatOthersHaveSetAreThemselves(t *testing.T) {
	for _, text := range []string{"", "a=", "a=b", "=+", "==", "=qp", "=q", "=zzzzz", "x=y"} {
		if got := decodeTag(text); got != text {
			t.Errorf("%q is shown as %q", text, got)
		}
	}
}

func TestTagsThatDoNotFitAreRefused(t *testing.T) {
	for _, tags := range []backends.Tags{
		{strings.Repeat("k", maxTagKey): strings.Repeat("v", maxTagValue)},
		{strings.Repeat("ü", maxTagKey/3): strings.Repeat("@", maxTagValue/3)},
	} {
		if got, err := encodeTags(tags); err != nil || len(got) != 1 {
			t.Errorf("%d tags, %v", len(got), err)
		}
	}
	for name, c := range map[string]struct {
		tags backends.Tags
		want error
	}{
		"a key that grows":   {backends.Tags{strings.Repeat("ü", maxTagKey/3+1): ""}, backends.ErrInvalidTag},
		"a value that grows": {backends.Tags{"k": strings.Repeat("@", maxTagValue/3+1)}, backends.ErrInvalidTag},
		"no key":             {backends.Tags{"": ""}, backends.ErrInvalidName},
		"a key of 129":       {backends.Tags{strings.Repeat("k", maxTagKey+1): ""}, backends.ErrTooLarge},
	} {
		if got, err := encodeTags(c.tags); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func FuzzTags(f *testing.F) {
	for _, text := range []string{"a", "=", "=-", "=q-", "größe", "=cr_", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// What is read from Azure is either of our making or itself, and always one tag.
		if got := decodeTag(text); got != text && encodeTag(got) != text {
			t.Errorf("%q is shown as %q, which is %q", text, got, encodeTag(got))
		}
		if !utf8.ValidString(text) {
			return
		}
		encoded := encodeTag(text)
		if i := strings.IndexFunc(encoded, notOfATag); i >= 0 || decodeTag(encoded) != text {
			t.Errorf("%q is %q, which is %q", text, encoded, decodeTag(encoded))
		}
	})
}

func notOfATag(r rune) bool {
	return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 +-./:=_", r)
}

func TestDifferentTagsStayDifferent(t *testing.T) {
	tags := backends.Tags{}
	for i, key := range []string{"a", "A", "=", "=rx", "@", "=s-", "ü", "u\u0308"} {
		tags[key] = fmt.Sprint(i)
	}
	encoded, err := encodeTags(tags)
	if err != nil {
		t.Fatal(err)
	}
	got := backends.Tags{}
	for key, value := range encoded {
		got[decodeTag(key)] = decodeTag(value)
	}
	if !maps.Equal(got, tags) {
		t.Errorf("got %q, want %q", got, tags)
	}
}
