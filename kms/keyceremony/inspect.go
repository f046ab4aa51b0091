package keyceremony

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"chatelaine/hsm"
	"chatelaine/kms"
)

// inspect reads what the token says of a key, and tests it. ErrUnsafe when it is not as
// a KEK must be.
func inspect(ctx context.Context, token *hsm.Token, name string, key hsm.Key) (Key, error) {
	info, err := token.Find(ctx, key)
	if err != nil {
		return Key{}, translate(err)
	}
	k := Key{KEK: name, Label: key.Label, Mechanism: string(key.Mechanism), URI: clean(info.URI), Objects: []Object{}}
	for _, label := range key.Labels() {
		objects, err := token.Describe(ctx, label)
		if err != nil {
			return Key{}, err
		}
		for _, o := range objects {
			if err := judge(o); err != nil {
				return Key{}, err
			}
			k.Objects = append(k.Objects, objectOf(o))
		}
	}
	if err := k.complete(); err != nil {
		return Key{}, err
	}
	if k.Dialect, err = token.Dialect(ctx, key); err != nil {
		return Key{}, err
	}
	k.Tests, err = selfTest(ctx, token, key)
	return k, err
}

func objectOf(o hsm.ObjectFacts) Object {
	out := Object{
		Label: o.Label, Class: o.Class, Type: o.Type, Bits: o.Bits, PublicKey: o.PublicKey,
		Attributes: []Attribute{}, CheckValues: []CheckValue{},
	}
	for _, a := range o.Attributes {
		out.Attributes = append(out.Attributes, Attribute{a.Name, a.Value})
	}
	for _, v := range o.CheckValues {
		out.CheckValues = append(out.CheckValues, CheckValue{v.Method, v.Value})
	}
	return out
}

// complete refuses a key by which nobody could tell it from another: one of which
// neither a check value nor a public half can be told.
func (k Key) complete() error {
	secret := func(o Object) bool { return o.Class != "public key" }
	if !slices.ContainsFunc(k.Objects, secret) {
		return fmt.Errorf("%w: the token tells nothing of the key", kms.ErrUnsafe)
	}
	for _, o := range k.Objects {
		if secret(o) && len(o.CheckValues) == 0 && o.PublicKey == "" && !k.hasPublicHalf() {
			return fmt.Errorf("%w: the token gives no check value of %q", kms.ErrUnsafe, o.Label)
		}
	}
	return nil
}

func (k Key) hasPublicHalf() bool {
	return slices.ContainsFunc(k.Objects, func(o Object) bool { return o.Class == "public key" && o.PublicKey != "" })
}

// judge refuses an object that has not the attributes that it was made with. What a
// token does not tell is refused too: nobody could say that the key is as it was asked
// for. A public half has nothing to hide.
func judge(o hsm.ObjectFacts) error {
	if o.Class == "public key" {
		return nil
	}
	var problems []error
	for _, a := range o.Attributes {
		want := a.Want
		if want == "" {
			want = wantedUse(o, a.Name)
		}
		if want != "" && a.Value != want {
			problems = append(problems, fmt.Errorf("%s is %s, and was asked to be %s", a.Name, a.Value, want))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%w: %q is not as it was asked for: %w", kms.ErrUnsafe, o.Label, err)
	}
	return nil
}

// wantedUse is what an attribute that says what a key is for must be; "" for one that
// keys of this class have not (PKCS#11 v2.40, tables 24 and 33).
func wantedUse(o hsm.ObjectFacts, attribute string) string {
	may := map[string][]string{
		"AES": {"CKA_ENCRYPT", "CKA_DECRYPT"}, "generic secret": {"CKA_SIGN"}, "RSA": {"CKA_DECRYPT"},
	}[o.Type]
	foreign := []string{"CKA_ENCRYPT", "CKA_WRAP", "CKA_VERIFY"}
	if o.Class == "private key" && slices.Contains(foreign, attribute) {
		return ""
	}
	return fmt.Sprint(slices.Contains(may, attribute))
}

// selfTest shows that the key opens what it wrapped, and nothing else, as the KMS would
// use it. It returns what was shown.
func selfTest(ctx context.Context, token *hsm.Token, key hsm.Key) ([]string, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	aad := []byte("key ceremony")
	wrapped, err := token.Encrypt(ctx, key, secret, aad)
	if err != nil {
		return nil, err
	}
	opened, err := token.Decrypt(ctx, key, wrapped, aad)
	if err != nil {
		return nil, err
	}
	again, err := token.Encrypt(ctx, key, secret, aad)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(opened, secret) || bytes.Equal(again, wrapped) || bytes.Contains(wrapped, secret) {
		return nil, fmt.Errorf("%w: it unwraps to something else, or wraps to the same bytes twice", kms.ErrUnsafe)
	}
	for _, at := range []int{0, len(wrapped) / 2, len(wrapped) - 1} {
		tampered := bytes.Clone(wrapped)
		tampered[at] ^= 1
		if err := refuses(ctx, token, key, tampered, aad); err != nil {
			return nil, fmt.Errorf("with a bit of byte %d changed: %w", at, err)
		}
	}
	if err := refuses(ctx, token, key, wrapped, []byte("key ceremonx")); err != nil {
		return nil, fmt.Errorf("under another context: %w", err)
	}
	return []string{
		"wrapped 32 random bytes and unwrapped them again",
		"wrapped the same bytes twice, to different bytes",
		"refused wrapped bytes with a bit changed, at the beginning, in the middle and at the end",
		"refused wrapped bytes under another context",
	}, nil
}

func refuses(ctx context.Context, token *hsm.Token, key hsm.Key, wrapped, aad []byte) error {
	_, err := token.Decrypt(ctx, key, wrapped, aad)
	if err == nil {
		return fmt.Errorf("%w: it was unwrapped", kms.ErrUnsafe)
	}
	if errors.Is(err, hsm.ErrCorrupt) {
		return nil
	}
	return err
}
