package kms

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestSecretDoesNotPrint(t *testing.T) {
	const planted = "planted-secret"
	secret := NewSecret([]byte(planted))
	type exported struct{ S Secret }
	type hidden struct{ s Secret }
	values := []any{
		secret, &secret,
		exported{secret},
		hidden{secret},
		&hidden{secret},
		[]hidden{{secret}},
		map[string]hidden{"x": {secret}},
		OpenKey{Key: secret},
		SigningKey{Key: secret},
		NewAccessKey{Secret: secret},
	}
	for _, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%t", "%c"} {
			got := fmt.Sprintf(verb, value)
			for _, form := range []string{planted, fmt.Sprintf("%x", planted), fmt.Sprintf("%X", planted), fmt.Sprint([]byte(planted)), "112 108 97"} {
				if strings.Contains(got, form) {
					t.Errorf("%s of %T shows the secret: %s", verb, value, got)
				}
			}
		}
	}
}

func TestSecretRefusesToBeMarshalled(t *testing.T) {
	if _, err := json.Marshal(map[string]Secret{"s": NewSecret([]byte("x"))}); !errors.Is(err, ErrDenied) {
		t.Errorf("got %v, want ErrDenied", err)
	}
}

func TestSecretEqual(t *testing.T) {
	a, b, c := NewSecret([]byte("abc")), NewSecret([]byte("abc")), NewSecret([]byte("abd"))
	if !a.Equal(b) || a.Equal(c) || a.Equal(Secret{}) {
		t.Errorf("Equal: %t %t %t, want true false false", a.Equal(b), a.Equal(c), a.Equal(Secret{}))
	}
	if (Secret{}).Len() != 0 || a.Len() != 3 {
		t.Errorf("Len: %d %d, want 0 3", Secret{}.Len(), a.Len())
	}
}
