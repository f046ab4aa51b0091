package kms_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"chatelaine/kms"
)

func TestBindingBytesAreCanonical(t *testing.T) {
	got := kms.Binding{Purpose: "p", Space: "", ID: "id"}.Bytes(kms.KeyRef{Name: "main", Version: 12})
	want := "cho1/wrap\x00" + "\x00\x00\x00\x01p" + "\x00\x00\x00\x04main" + "\x00\x00\x00\x0212" + "\x00\x00\x00\x00" + "\x00\x00\x00\x02id"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type setting struct {
	ref kms.KeyRef
	b   kms.Binding
}

func TestContextsThatDifferHaveDifferentBytes(t *testing.T) {
	seen := map[string]setting{}
	for _, c := range contexts() {
		text := string(c.b.Bytes(c.ref))
		if other, ok := seen[text]; ok {
			t.Errorf("%+v and %+v are both %q", c, other, text)
		}
		seen[text] = c
	}
}

// contexts are all combinations of fields that could be mistaken for each other
// where fields are only joined.
func contexts() []setting {
	var out []setting
	fields := []string{"", "a", "b", "ab", "aa", "\x00", "\x00\x00\x00\x01a", "1", "11"}
	for _, name := range fields {
		for _, version := range []uint32{1, 11} {
			for _, purpose := range fields {
				for _, space := range fields {
					for _, id := range fields {
						out = append(out, setting{kms.KeyRef{Name: name, Version: version}, kms.Binding{Purpose: purpose, Space: space, ID: id}})
					}
				}
			}
		}
	}
	return out
}

func FuzzBindingBytesAreInjective(f *testing.F) {
	f.Add("bucket-key", "main", uint32(1), "s", "id", "bucket-key", "main", uint32(1), "si", "d")
	f.Add("a", "b", uint32(11), "", "", "a", "b1", uint32(1), "", "")
	f.Fuzz(func(t *testing.T, p1, n1 string, v1 uint32, s1, i1, p2, n2 string, v2 uint32, s2, i2 string) {
		a := setting{kms.KeyRef{Name: n1, Version: v1}, kms.Binding{Purpose: p1, Space: s1, ID: i1}}
		b := setting{kms.KeyRef{Name: n2, Version: v2}, kms.Binding{Purpose: p2, Space: s2, ID: i2}}
		if same := bytes.Equal(a.b.Bytes(a.ref), b.b.Bytes(b.ref)); same != (a == b) {
			t.Errorf("%+v and %+v: same bytes is %t", a, b, same)
		}
	})
}

func TestUnbindTakesOffOnlyItsOwnBinding(t *testing.T) {
	ref := kms.KeyRef{Name: "main", Version: 1}
	b := kms.Binding{Purpose: "bucket-key", Space: "s", ID: "i"}
	bound := kms.Bind(ref, b, []byte("secret"))
	if got, err := kms.Unbind(ref, b, bound); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, tt := range map[string]struct {
		ref   kms.KeyRef
		b     kms.Binding
		bound []byte
	}{
		"another key":     {kms.KeyRef{Name: "other", Version: 1}, b, bound},
		"another version": {kms.KeyRef{Name: "main", Version: 2}, b, bound},
		"another purpose": {ref, kms.Binding{Purpose: "access-key", Space: "s", ID: "i"}, bound},
		"another space":   {ref, kms.Binding{Purpose: "bucket-key", Space: "t", ID: "i"}, bound},
		"another id":      {ref, kms.Binding{Purpose: "bucket-key", Space: "s", ID: "j"}, bound},
		"changed":         {ref, b, append([]byte{bound[0] ^ 1}, bound[1:]...)},
		"too short":       {ref, b, bound[:sha256.Size-1]},
		"empty":           {ref, b, nil},
	} {
		if got, err := kms.Unbind(tt.ref, tt.b, tt.bound); !errors.Is(err, kms.ErrCorrupt) || got != nil {
			t.Errorf("%s: got %q, %v, want ErrCorrupt", name, got, err)
		}
	}
}

func TestKeyRefIsNamedAsInTokens(t *testing.T) {
	if got := (kms.KeyRef{Name: "main", Version: 3}).String(); got != "main.v3" {
		t.Errorf("got %q, want main.v3", got)
	}
}
