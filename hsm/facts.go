package hsm

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// ObjectFacts is what a token says of one object, to who is logged in.
type ObjectFacts struct {
	Label string `json:"label"`
	Class string `json:"class"`          // "secret key", "private key", "public key", or a number
	Type  string `json:"type"`           // "AES", "RSA", "generic secret", or a number
	Bits  uint   `json:"bits,omitempty"` // 0: it does not say
	// Attributes are in a fixed order.
	Attributes []AttributeFacts `json:"attributes"`
	// CheckValues are of secret keys, from each way that the token has. Empty: from none.
	CheckValues []CheckValue `json:"check_values,omitempty"`
	// PublicKey is the SHA-256 in hex of an RSA key's public half, in the form of RFC
	// 5280's SubjectPublicKeyInfo. "": it is none, or does not tell.
	PublicKey string `json:"public_key_sha256,omitempty"`
}

// AttributeFacts is an attribute that is true or false.
type AttributeFacts struct {
	Name  string `json:"name"`  // "CKA_SENSITIVE"
	Value string `json:"value"` // "true", "false", or "unreadable"
	// Want is what it must be for a key of ours: "true", "false", or "" where it is
	// not refused for it.
	Want string `json:"want,omitempty"`
}

// CheckValue is a key check value: three bytes that tell whether two keys are the
// same, and nearly nothing of the key.
type CheckValue struct {
	// Method is "CKA_CHECK_VALUE" (what the token keeps with the key; PKCS#11 v2.40,
	// section 4.10.2), or how it is computed, of 16 bytes of zero: "CKM_AES_ECB",
	// "CKM_AES_CMAC" or "CKM_SHA256_HMAC".
	Method string `json:"method"`
	Value  string `json:"value"` // 6 hex digits
}

// maxObjects is how many objects of a token Labels looks at.
const maxObjects = 10000

// Labels lists the labels of all objects that begin with prefix; one that two objects
// have is there twice. It looks at 10,000 objects at most, with one call for each.
// Errors: ErrUnavailable, ErrUnsupported, ctx's error.
func (t *Token) Labels(ctx context.Context, prefix string) ([]string, error) {
	out, err := run(ctx, t, operation{"list", attempts}, func(w *worker) ([]string, error) { return w.labels(prefix) })
	if err != nil {
		return nil, fmt.Errorf("hsm: listing objects: %w", err)
	}
	return out, nil
}

func (w *worker) labels(prefix string) ([]string, error) {
	s, err := surveyorOf(w.c)
	if err != nil {
		return nil, err
	}
	objects, err := s.objects(w.session, maxObjects)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, o := range objects {
		label, err := w.c.attribute(w.session, o, ckaLabel)
		if curable(err) && diagnose(err) != faultHandle {
			return nil, err
		}
		if err == nil && strings.HasPrefix(string(label), prefix) {
			out = append(out, string(label))
		}
	}
	return out, nil
}

// Describe reads all objects of a label, without judging them: Find judges. Of a label
// that nothing has, the answer is empty. Errors: ErrUnavailable, ErrUnsupported, ctx's
// error.
func (t *Token) Describe(ctx context.Context, label string) ([]ObjectFacts, error) {
	out, err := run(ctx, t, operation{"describe", attempts}, func(w *worker) ([]ObjectFacts, error) {
		found, err := w.c.find(w.session, []attribute{{ckaLabel, label}})
		if err != nil {
			return nil, err
		}
		var facts []ObjectFacts
		for _, o := range found {
			f, err := w.facts(label, o)
			if err != nil {
				return nil, err
			}
			facts = append(facts, f)
		}
		return facts, nil
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: describing %q: %w", label, err)
	}
	return out, nil
}

func (w *worker) facts(label string, o objectHandle) (ObjectFacts, error) {
	f := ObjectFacts{Label: label}
	class, err := w.number(o, ckaClass)
	kind, err2 := w.number(o, ckaKeyType)
	size, err3 := w.number(o, ckaValueLen)
	if err := errors.Join(err, err2, err3); err != nil {
		return f, err
	}
	f.Class, f.Type = className(class), typeName(kind)
	if size != nil {
		f.Bits = 8 * *size
	}
	for _, want := range told() {
		value, err := w.flag(o, want.kind)
		if err != nil {
			return f, err
		}
		a := AttributeFacts{Name: want.name, Value: value}
		if want.must {
			a.Want = fmt.Sprint(want.value)
		}
		f.Attributes = append(f.Attributes, a)
	}
	switch f.Type {
	case "AES":
		f.CheckValues, err = w.checkValues(o)
	case "generic secret":
		f.CheckValues, err = w.checkMAC(o)
	case "RSA":
		err = w.rsaFacts(o, &f)
	}
	return f, err
}

// checkMAC computes a check value of a key that makes MACs. What our mechanisms
// authenticate is never as short. CKA_CHECK_VALUE is not asked: of such keys it is a
// hash of the key itself.
func (w *worker) checkMAC(o objectHandle) ([]CheckValue, error) {
	mac, err := w.c.sign(w.session, o, mechanism{kind: ckmSHA256HMAC}, make([]byte, blockSize))
	return appendCheckValue(nil, "CKM_SHA256_HMAC", mac, err)
}

// rsaFacts reads the public half, as far as this object tells it.
func (w *worker) rsaFacts(o objectHandle, f *ObjectFacts) error {
	modulus, err := w.c.attribute(w.session, o, ckaModulus)
	exponent, err2 := w.c.attribute(w.session, o, ckaPublicExponent)
	if curable(err) || curable(err2) {
		return errors.Join(err, err2)
	}
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	f.Bits = uint(n.BitLen())
	if n.Sign() == 0 || e.Sign() == 0 || e.BitLen() > 31 {
		return nil
	}
	der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: int(e.Int64())})
	if err != nil {
		return nil //nolint:nilerr // Describe does not judge: it is a key without a form
	}
	sum := sha256.Sum256(der)
	f.PublicKey = hex.EncodeToString(sum[:])
	return nil
}

// told is what Describe reads: what a key of ours must have, and what it may be for.
func told() []toldFlag {
	var out []toldFlag
	for _, f := range mustHave() {
		out = append(out, toldFlag{f, true})
	}
	for _, f := range []flag{
		{kind: ckaEncrypt, name: "CKA_ENCRYPT"},
		{kind: ckaDecrypt, name: "CKA_DECRYPT"},
		{kind: ckaWrap, name: "CKA_WRAP"},
		{kind: ckaUnwrap, name: "CKA_UNWRAP"},
		{kind: ckaSign, name: "CKA_SIGN"},
		{kind: ckaVerify, name: "CKA_VERIFY"},
		{kind: ckaDerive, name: "CKA_DERIVE"},
	} {
		out = append(out, toldFlag{f, false})
	}
	return out
}

type toldFlag struct {
	flag
	must bool
}

// number reads an attribute that not every object has; nil when this one has it not.
func (w *worker) number(o objectHandle, kind uint) (*uint, error) {
	value, err := w.c.attribute(w.session, o, kind)
	if curable(err) {
		return nil, err
	}
	n, ok := ulong(value)
	if err != nil || !ok {
		return nil, nil
	}
	return &n, nil
}

func (w *worker) flag(o objectHandle, kind uint) (string, error) {
	value, err := w.c.attribute(w.session, o, kind)
	switch {
	case curable(err):
		return "", err
	case err != nil || len(value) != 1:
		return "unreadable", nil
	}
	return fmt.Sprint(isTrue(value)), nil
}

// checkValues asks in each way. CMAC is asked only where ECB is refused: our keys must
// not sign.
func (w *worker) checkValues(o objectHandle) ([]CheckValue, error) {
	s, err := surveyorOf(w.c)
	if err != nil {
		return nil, err
	}
	var out []CheckValue
	kept, err := w.c.attribute(w.session, o, ckaCheckValue)
	out, err = appendCheckValue(out, "CKA_CHECK_VALUE", kept, err)
	if err != nil {
		return nil, err
	}
	block, err := s.blockECB(w.session, o)
	if err == nil {
		return appendCheckValue(out, "CKM_AES_ECB", block, nil)
	}
	if curable(err) {
		return nil, err
	}
	block, err = s.blockCMAC(w.session, o)
	return appendCheckValue(out, "CKM_AES_CMAC", block, err)
}

// ckaCheckValue is CKA_CHECK_VALUE.
const ckaCheckValue = 0x090

// checkValueSize is in bytes.
const checkValueSize = 3

func appendCheckValue(to []CheckValue, method string, value []byte, err error) ([]CheckValue, error) {
	if curable(err) {
		return nil, err
	}
	if err != nil || len(value) < checkValueSize {
		return to, nil
	}
	return append(to, CheckValue{Method: method, Value: hex.EncodeToString(value[:checkValueSize])}), nil
}

func className(class *uint) string {
	return numberName(class, map[uint]string{0: "data", 1: "certificate", 2: "public key", 3: "private key", ckoSecretKey: "secret key"})
}

func typeName(kind *uint) string {
	return numberName(kind, map[uint]string{0: "RSA", 3: "EC", 0x10: "generic secret", ckkAES: "AES"})
}

func numberName(n *uint, known map[uint]string) string {
	if n == nil {
		return "unknown"
	}
	if name, ok := known[*n]; ok {
		return name
	}
	return fmt.Sprintf("0x%X", *n)
}

// Dialect says in words who makes the IVs under a key of AES-GCM, after testing the key
// as Find does. It is "" for other mechanisms. Errors: those of Find.
func (t *Token) Dialect(ctx context.Context, key Key) (string, error) {
	if err := key.validate(); err != nil {
		return "", fmt.Errorf("hsm: probing key %q: %w", key.Label, err)
	}
	out, err := run(ctx, t, operation{"probe", attempts}, func(w *worker) (string, error) {
		k, err := w.key(key)
		if err != nil {
			return "", err
		}
		gcm, _ := k.profile.(aesGCM)
		return string(gcm.speaks), nil
	})
	if err != nil {
		return "", fmt.Errorf("hsm: probing key %q: %w", key.Label, err)
	}
	return out, nil
}
