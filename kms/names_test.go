package kms

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestNamesAreChecked(t *testing.T) {
	name := func(s string) error { return checkName("name", s) }
	secret := func(s string) error { return checkSecret(NewSecret([]byte(s))) }
	tests := []struct {
		what  string
		check func(string) error
		good  []string
		bad   []string
	}{
		{"name", name, []string{"a", "main", "My-bucket.1_x", strings.Repeat("a", 63)}, []string{"", "-a", ".", "..", "a/b", "a b", "ä", strings.Repeat("a", 64)}},
		{"store name", checkStoreName, []string{"b", strings.Repeat("b", 255)}, []string{"", "a/b", strings.Repeat("b", 256)}},
		{"principal", checkPrincipal, []string{"alice", "alice@example.org", "a:b"}, []string{"", "a/b", "a b", "a\n", strings.Repeat("p", 129)}},
		{"access key id", checkAccessKeyID, []string{"abc", "AKIA.x_y-z", strings.Repeat("A", 128)}, []string{"", "ab", "a/b", "a b c", strings.Repeat("A", 129)}},
		{"secret", secret, []string{"12345678", strings.Repeat("s", 128)}, []string{"", "1234567", strings.Repeat("s", 129)}},
		{"space", checkSpace, []string{"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, []string{"", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}", "../x"}},
	}
	for _, test := range tests {
		for _, s := range test.good {
			if err := test.check(s); err != nil {
				t.Errorf("%s %q: %v", test.what, s, err)
			}
		}
		for _, s := range test.bad {
			if err := test.check(s); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s %q: got %v, want ErrInvalid", test.what, s, err)
			}
		}
	}
}

func TestScopeDateIsBounded(t *testing.T) {
	now := time.Date(2026, 3, 10, 23, 59, 0, 0, time.UTC)
	tests := map[string]bool{
		"20260310": true, "20260311": true, "20260302": true,
		"20260312": false, "20260301": false, "20250310": false, "2026-03-10": false, "": false, "20261310": false,
	}
	for date, want := range tests {
		if err := checkDate(date, now); (err == nil) != want {
			t.Errorf("%q: got %v, want ok: %t", date, err, want)
		}
	}
}

// The example of the AWS General Reference, "Deriving the signing key".
func TestSigningKeyIsThatOfTheSpecification(t *testing.T) {
	secret := NewSecret([]byte("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
	want := "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
	deriveSigningKey(secret, "20150830", "us-east-1", "iam").Use(func(key []byte) {
		if got := KeyID(key[:16]).String() + KeyID(key[16:]).String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestRandomTextHasItsLengthAndAlphabet(t *testing.T) {
	seen := map[rune]int{}
	for range 200 {
		s := randomText(40, upper)
		if len(s) != 40 {
			t.Fatalf("length %d, want 40", len(s))
		}
		for _, r := range s {
			seen[r]++
		}
	}
	for r, n := range seen {
		if !strings.ContainsRune(upper, r) || n < 100 || n > 400 { // about 222 each
			t.Errorf("%q was drawn %d times of 8000", r, n)
		}
	}
	if len(seen) != len(upper) {
		t.Errorf("%d different characters, want %d", len(seen), len(upper))
	}
}

func TestVersionsOfKEKsAreReadFromTheirNames(t *testing.T) {
	for text, want := range map[string]KeyRef{
		"main": {Name: "main", Version: 1}, "main.v1": {Name: "main", Version: 1}, "a.b.v12": {Name: "a.b", Version: 12},
		"main.v": {Name: "main.v", Version: 1}, "a.v4294967295": {Name: "a", Version: 1<<32 - 1},
		"": {}, "main.v0": {}, "main.v01": {}, ".v1": {}, "a.v4294967296": {}, "a b": {}, "a.v1.v2": {},
	} {
		got, err := ParseKeyRef(text)
		if got != want || (err == nil) != (want.Version != 0) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}
