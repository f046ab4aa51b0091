package hsm_test

import (
	"errors"
	"reflect"
	"testing"

	"chatelaine/hsm"
)

func TestURIIsParsed(t *testing.T) {
	slot := uint(3)
	for text, want := range map[string]hsm.URI{
		"pkcs11:":             {},
		"pkcs11:token=gw":     {Token: hsm.Selector{Label: "gw"}},
		"pkcs11:slot-id=3":    {Token: hsm.Selector{Slot: &slot}},
		"pkcs11:id=%00%FF%3B": {ID: "\x00\xff;"},
		"pkcs11:token=The%20Software;manufacturer=Snake%20Oil;model=1.0;serial=1a;object=main.v1;type=secret-key?module-path=/usr/lib/p.so&pin-source=file:/etc/pin": {
			Token:  hsm.Selector{Label: "The Software", Manufacturer: "Snake Oil", Model: "1.0", Serial: "1a"},
			Object: "main.v1", Type: "secret-key", ModulePath: "/usr/lib/p.so", PINSource: "file:/etc/pin",
		},
	} {
		got, err := hsm.ParseURI(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestURIThatMightMeanAnotherKeyIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "token=x", "http:token=x", "pkcs11:token", "pkcs11:token=a;token=b", "pkcs11:tokem=a",
		"pkcs11:token=%zz", "pkcs11:slot-id=x", "pkcs11:slot-id=-1", "pkcs11:?pin-value=1234", "pkcs11:token=a;",
	} {
		if got, err := hsm.ParseURI(text); !errors.Is(err, hsm.ErrInvalid) {
			t.Errorf("%q: got %+v, %v, want ErrInvalid", text, got, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=The%20Software;slot-id=3?pin-source=/etc/pin")
	f.Add("pkcs11:id=%00;object=a")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := hsm.ParseURI(text)
		if err != nil {
			return
		}
		again, err := hsm.ParseURI(u.String())
		if err != nil || !reflect.DeepEqual(again, u) {
			t.Errorf("%q is written as %q, which is %+v, %v, and not %+v", text, u, again, err, u)
		}
	})
}
