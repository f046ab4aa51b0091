package sealed

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestNewKeyRefusesWhatIsNoKey(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"nil", nil},
		{"short", bytes.Repeat([]byte{1}, 31)},
		{"long", bytes.Repeat([]byte{1}, 33)},
		{"all zero", make([]byte, 32)},
	} {
		_, err := NewKey(tt.b)
		wantError(t, tt.name, err, ErrKey)
	}
}

func TestKeyDoesNotFollowTheBytesItWasMadeFrom(t *testing.T) {
	b := bytes.Repeat([]byte{1}, 32)
	k, err := NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	other, err := NewKey(bytes.Repeat([]byte{1}, 32))
	if err != nil || !k.Equal(other) || k.Equal(Key{}) || (Key{}).Equal(Key{}) || k.Equal(testKey(t, 3)) {
		t.Errorf("keys compare wrongly (%v)", err)
	}
	boom := errors.New("boom")
	if err := k.Use(func(b []byte) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("Use: got %v", err)
	}
	wantError(t, "Use of no key", Key{}.Use(func([]byte) error { return nil }), ErrKey)
	if !(Key{}).IsZero() || k.IsZero() {
		t.Error("IsZero is wrong")
	}
}

// TestKeysDoNotPrint plants a key and looks for it in everything that prints values, also through fields that fmt reads
// without calling methods.
func TestKeysDoNotPrint(t *testing.T) {
	secret := bytes.Repeat([]byte("K9"), 16)
	k, err := NewKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	type hidden struct{ key Key }
	s := Suite{}
	sealer, err := s.NewSealer(bytes.NewReader(nil), 0, k, Options{Batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	values := []any{k, &k, []Key{k}, map[string]Key{"k": k}, hidden{k}, &hidden{k}, Envelope{DEK: k}, Stash{DEK: k}, sealer}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			checkNoSecret(t, fmt.Sprintf("%T with %s", v, verb), fmt.Sprintf(verb, v), secret)
		}
	}
	text, err := json.Marshal(Envelope{DEK: k})
	if err != nil {
		t.Fatal(err)
	}
	checkNoSecret(t, "json", string(text), secret)
	if got := k.String(); got != keyText {
		t.Errorf("String: got %q", got)
	}
}

func checkNoSecret(t *testing.T, where, printed string, secret []byte) {
	t.Helper()
	decimal := strings.Trim(fmt.Sprintf("%d", secret[:8]), "[]")
	for _, form := range []string{string(secret[:8]), hex.EncodeToString(secret[:8]), decimal, strings.ReplaceAll(decimal, " ", ", "), "0x4b, 0x39, 0x4b"} {
		if strings.Contains(strings.ToLower(printed), strings.ToLower(form)) {
			t.Errorf("%s prints the key", where)
			return
		}
	}
}
