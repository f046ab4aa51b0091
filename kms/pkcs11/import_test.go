package pkcs11_test

import (
	"testing"

	raw "github.com/miekg/pkcs11"

	"chatelaine/hsm"
)

// importKey puts a key of known bytes into the token, as somebody careless would.
func importKey(t *testing.T, cfg hsm.Config, label string) {
	t.Helper()
	c := raw.New(cfg.Module)
	if c == nil {
		t.Fatalf("loading %s", cfg.Module)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(c.Initialize())
	defer func() { check(c.Finalize()) }()
	slots, err := c.GetSlotList(true)
	check(err)
	s, err := c.OpenSession(slots[0], raw.CKF_SERIAL_SESSION|raw.CKF_RW_SESSION)
	check(err)
	check(cfg.PIN.Use(func(pin string) error { return c.Login(s, raw.CKU_USER, pin) }))
	_, err = c.CreateObject(s, []*raw.Attribute{
		raw.NewAttribute(raw.CKA_CLASS, raw.CKO_SECRET_KEY),
		raw.NewAttribute(raw.CKA_KEY_TYPE, raw.CKK_AES),
		raw.NewAttribute(raw.CKA_VALUE, make([]byte, 32)),
		raw.NewAttribute(raw.CKA_LABEL, label),
		raw.NewAttribute(raw.CKA_TOKEN, true),
		raw.NewAttribute(raw.CKA_PRIVATE, true),
		raw.NewAttribute(raw.CKA_SENSITIVE, true),
		raw.NewAttribute(raw.CKA_EXTRACTABLE, false),
		raw.NewAttribute(raw.CKA_MODIFIABLE, false),
		raw.NewAttribute(raw.CKA_ENCRYPT, true),
		raw.NewAttribute(raw.CKA_DECRYPT, true),
	})
	check(err)
}
