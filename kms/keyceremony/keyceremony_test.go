package keyceremony

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
)

func TestACeremonyMakesKeysWhichWitnessesSignAndAnybodyVerifies(t *testing.T) {
	p := plan(t, version("main", 1), version("rsa", 1), version("pair", 3))
	var before *Record
	p.Agree = func(r *Record) error { before = r; return nil }
	made, err := Make(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if before.Token.Serial == "" || made.Module.File == "" || len(made.Module.SHA256) != 64 || made.Token.Label != hsmtest.Label || made.Ended.Before(made.Started) {
		t.Errorf("got %+v, and to agree to %+v", made, before)
	}
	var labels []string
	for _, k := range made.Keys {
		for _, o := range k.Objects {
			labels = append(labels, o.Label+" "+o.Class)
			if o.Class != "public key" && len(o.CheckValues) == 0 && o.PublicKey == "" {
				t.Errorf("nothing tells %s from others", o.Label)
			}
		}
		if len(k.Tests) != 4 {
			t.Errorf("%s: tests %q", k.KEK, k.Tests)
		}
	}
	slices.Sort(labels)
	want := []string{"p-main.v1 secret key", "p-pair.v3#enc secret key", "p-pair.v3#mac secret key", "p-rsa.v1 private key", "p-rsa.v1 public key"}
	if !slices.Equal(labels, want) {
		t.Errorf("got %q, want %q", labels, want)
	}

	files := read(t, p.Folder)
	for _, w := range p.Witnesses {
		who, err := made.Signer(named(w.Name).sign(files.Statement))
		if err != nil || who != w {
			t.Fatalf("got %v, %v", who, err)
		}
		if err := AddSignature(p.Folder, w, named(w.Name).sign(files.Statement)); err != nil {
			t.Fatal(err)
		}
	}
	if err := AddSignature(p.Folder, p.Witnesses[0], "again"); !errors.Is(err, kms.ErrExists) {
		t.Errorf("a second signature of one: got %v", err)
	}
	report, err := read(t, p.Folder).Verify(p.Witnesses)
	if err != nil || report.Err() != nil || !slices.Equal(report.Signed, []string{"alice", "bob"}) {
		t.Errorf("got %+v, %v", report, err)
	}
	if err := report.Compare(t.Context(), p.Store.HSM); err != nil || report.Err() != nil || len(report.Notes) != 0 {
		t.Errorf("the token is as it was: got %q, %q, %v", report.Problems, report.Notes, err)
	}
}

func read(t *testing.T, folder string) Files {
	t.Helper()
	f, err := ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCeremoniesThatCannotBeLeaveNothing(t *testing.T) {
	main := version("main", 1)
	p := plan(t, main)
	good := p.Store.HSM
	inToken(t, p, func(token *hsm.Token) {
		for _, key := range []hsm.Key{{Label: "p-taken.v1", Mechanism: hsm.AESGCM}, {Label: "p-other.v1", Mechanism: hsm.AESCBCHMAC}} {
			if _, err := token.Generate(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	})
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refusal := errors.New("no")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	type change = func(*Plan)
	tests := map[string]struct {
		change change
		is     error
		want   string
	}{
		"the label is taken":       {func(p *Plan) { p.Keys = append(p.Keys, version("taken", 1)) }, kms.ErrExists, `secret key "p-taken.v1"; nothing was made`},
		"another kind has it":      {func(p *Plan) { p.Keys = []kms.KeyRef{version("other", 1)} }, kms.ErrExists, "p-other.v1#enc"},
		"the second cannot be":     {func(p *Plan) { p.Keys = append(p.Keys, version("wrong", 1)) }, hsm.ErrUnsupported, "destroyed again"},
		"no such token":            {func(p *Plan) { p.Store.HSM.Token = hsm.Selector{Label: "none"} }, hsm.ErrNoToken, "initialise first"},
		"no such module":           {func(p *Plan) { p.Store.HSM.Module = "/none.so" }, kms.ErrInvalid, "/none.so"},
		"a module by name":         {func(p *Plan) { p.Store.HSM.Module = "libsofthsm2.so" }, kms.ErrInvalid, "whole path"},
		"no witness":               {func(p *Plan) { p.Witnesses = nil }, kms.ErrInvalid, "0 witnesses"},
		"a witness named twice":    {func(p *Plan) { p.Witnesses[1].Name = "Alice" }, kms.ErrInvalid, "named twice"},
		"one witness, two names":   {func(p *Plan) { p.Witnesses[1].Key = p.Witnesses[0].Key }, kms.ErrInvalid, "one witness"},
		"a witness that is a path": {func(p *Plan) { p.Witnesses[1].Name = "../x" }, kms.ErrInvalid, "../x"},
		"no key":                   {func(p *Plan) { p.Keys = nil }, kms.ErrInvalid, "1 to 64 keys"},
		"a key twice":              {func(p *Plan) { p.Keys = append(p.Keys, main) }, kms.ErrInvalid, "main.v1 is named twice"},
		"no such mechanism":        {func(p *Plan) { p.Store.Mechanism = "rot13" }, kms.ErrInvalid, "rot13"},
		"no version":               {func(p *Plan) { p.Keys = []kms.KeyRef{{Name: "main"}} }, kms.ErrInvalid, "a version from 1"},
		"a long reason":            {func(p *Plan) { p.Reason = strings.Repeat("x", 513) }, kms.ErrInvalid, "512"},
		"the folder has something": {func(p *Plan) { p.Folder = full }, kms.ErrExists, "a folder of its own"},
		"no folder can be":         {func(p *Plan) { p.Folder = filepath.Join(full, "x", "y") }, nil, "making folder"},
		"nobody agrees":            {func(p *Plan) { p.Agree = func(*Record) error { return refusal } }, refusal, "no"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := p
			p.Witnesses = slices.Clone(p.Witnesses)
			p.Folder = filepath.Join(t.TempDir(), "c")
			tc.change(&p)
			r, err := Make(t.Context(), p)
			if err == nil || r != nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v, want %v that says %q", r, err, tc.is, tc.want)
			}
			if _, err := os.Stat(filepath.Join(p.Folder, RecordFile)); err == nil {
				t.Error("a record is there")
			}
		})
	}
	p.Folder = filepath.Join(t.TempDir(), "c")
	if _, err := Make(cancelled, p); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	p.Store.HSM = good
	inToken(t, p, func(token *hsm.Token) {
		got, err := token.Labels(t.Context(), "")
		slices.Sort(got)
		if want := []string{"p-other.v1#enc", "p-other.v1#mac", "p-taken.v1"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("in the token are %q, %v, want %q", got, err, want)
		}
	})
}

func TestAWrongPINIsTriedOnceAndAfterEverybodyAgreed(t *testing.T) {
	p := plan(t, version("main", 1))
	p.Store.HSM.PIN = hsm.NewPIN("00000000")
	logins, agreed := 0, -1
	p.Store.HSM.Observe = func(operation, _ string, _ time.Duration) {
		if operation == "login" {
			logins++
		}
	}
	p.Agree = func(*Record) error { agreed = logins; return nil }
	_, err := Make(t.Context(), p)
	if !errors.Is(err, hsm.ErrPIN) || strings.Contains(err.Error(), "00000000") || logins != 1 || agreed != 0 {
		t.Errorf("got %v after %d logins, %d before it was agreed to", err, logins, agreed)
	}
	if _, err := os.Stat(p.Folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestACeremonyThatIsInterruptedSaysWhatIsLeft(t *testing.T) {
	p := plan(t, version("main", 1), version("main", 2))
	ctx, cancel := context.WithCancel(t.Context())
	p.Store.HSM.Observe = func(operation, _ string, _ time.Duration) {
		if operation == "generate" {
			cancel()
		}
	}
	_, err := Make(ctx, p)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	inToken(t, p, func(token *hsm.Token) {
		left, failed := token.Labels(t.Context(), "")
		if failed != nil || len(left) > 1 {
			t.Errorf("in the token are %q, %v", left, failed)
		}
		// Whether the call was still waited for is chance; that it is told is not.
		for _, label := range left {
			if !strings.Contains(err.Error(), "the token made \""+label) {
				t.Errorf("%q is there, and not told: %v", label, err)
			}
		}
		if len(left) == 0 && !strings.Contains(err.Error(), "destroyed again") {
			t.Errorf("nothing is there, and %v", err)
		}
	})
	if _, err := os.Stat(p.Folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestAModuleThatChangesMeanwhileEndsTheCeremony(t *testing.T) {
	p := plan(t, version("main", 1))
	text, err := os.ReadFile(p.Store.HSM.Module)
	if err != nil {
		t.Fatal(err)
	}
	real := p
	p.Store.HSM.Module = filepath.Join(t.TempDir(), "copy.so")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(p.Store.HSM.Module, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	p.Agree = func(*Record) error {
		// The linker has the old file open; a new one takes its name.
		if err := os.Remove(p.Store.HSM.Module); err != nil {
			return err
		}
		write(append(bytes.Clone(text), 0))
		return nil
	}
	if _, err := Make(t.Context(), p); !errors.Is(err, kms.ErrUnsafe) || !strings.Contains(err.Error(), "destroyed again") {
		t.Errorf("got %v", err)
	}
	inToken(t, real, func(token *hsm.Token) {
		if got, err := token.Labels(t.Context(), ""); err != nil || len(got) != 0 {
			t.Errorf("in the token are %q, %v", got, err)
		}
	})
}

func TestObjectsThatAreNotAsTheyWereAskedForAreRefused(t *testing.T) {
	object := func(class, kind, name, value, want string) hsm.ObjectFacts {
		return hsm.ObjectFacts{Label: "k", Class: class, Type: kind, Attributes: []hsm.AttributeFacts{{Name: name, Value: value, Want: want}}}
	}
	for name, tc := range map[string]struct {
		object hsm.ObjectFacts
		ok     bool
	}{
		"sensitive":              {object("secret key", "AES", "CKA_SENSITIVE", "true", "true"), true},
		"not sensitive":          {object("secret key", "AES", "CKA_SENSITIVE", "false", "true"), false},
		"extractable":            {object("secret key", "AES", "CKA_EXTRACTABLE", "true", "false"), false},
		"was extractable":        {object("secret key", "AES", "CKA_NEVER_EXTRACTABLE", "false", "true"), false},
		"of the session":         {object("secret key", "AES", "CKA_TOKEN", "false", "true"), false},
		"not told":               {object("secret key", "AES", "CKA_SENSITIVE", "unreadable", "true"), false},
		"encrypts":               {object("secret key", "AES", "CKA_ENCRYPT", "true", ""), true},
		"does not encrypt":       {object("secret key", "AES", "CKA_ENCRYPT", "false", ""), false},
		"wraps":                  {object("secret key", "AES", "CKA_WRAP", "true", ""), false},
		"derives, perhaps":       {object("secret key", "AES", "CKA_DERIVE", "unreadable", ""), false},
		"MAC key signs":          {object("secret key", "generic secret", "CKA_SIGN", "true", ""), true},
		"MAC key does not":       {object("secret key", "generic secret", "CKA_SIGN", "false", ""), false},
		"MAC key encrypts":       {object("secret key", "generic secret", "CKA_ENCRYPT", "true", ""), false},
		"private key decrypts":   {object("private key", "RSA", "CKA_DECRYPT", "true", ""), true},
		"private key signs":      {object("private key", "RSA", "CKA_SIGN", "true", ""), false},
		"private key unwraps":    {object("private key", "RSA", "CKA_UNWRAP", "true", ""), false},
		"private, of no meaning": {object("private key", "RSA", "CKA_WRAP", "unreadable", ""), true},
		"public half":            {object("public key", "RSA", "CKA_EXTRACTABLE", "true", "false"), true},
	} {
		if err := judge(tc.object); (err == nil) != tc.ok || err != nil && !errors.Is(err, kms.ErrUnsafe) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	nameless := Key{Objects: []Object{{Class: "secret key"}}}
	if err := nameless.complete(); !errors.Is(err, kms.ErrUnsafe) {
		t.Errorf("a key without a check value: got %v", err)
	}
	if err := (Key{}).complete(); !errors.Is(err, kms.ErrUnsafe) {
		t.Errorf("a key of no objects: got %v", err)
	}
}

func TestWhatChangedInTheTokenIsSaid(t *testing.T) {
	p := plan(t, version("main", 1), version("second", 1), version("third", 1))
	if _, err := Make(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	f := read(t, p.Folder)
	inToken(t, p, func(token *hsm.Token) {
		swap := func(label string, again hsm.Mechanism) {
			t.Helper()
			err := token.Destroy(t.Context(), hsm.Key{Label: label, Mechanism: hsm.AESGCM})
			if err == nil && again != "" {
				_, err = token.Generate(t.Context(), hsm.Key{Label: label, Mechanism: again})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		swap("p-main.v1", hsm.AESGCM)
		swap("p-second.v1", "")
		swap("p-third.v1", hsm.RSAOAEPSHA1)
	})
	report, err := f.Verify(nil)
	if err != nil {
		t.Fatal(err)
	}
	report.Problems = nil // nobody has signed
	report.Record.Module.SHA256 = "other"
	report.Record.Token.Serial, report.Record.Token.Firmware = "other", "other"
	if err := report.Compare(t.Context(), p.Store.HSM); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"key main.v1: check value CKM_AES_ECB", "key second.v1: the token has none", "key third.v1: ", "the token's serial number is",
	} {
		if !slices.ContainsFunc(report.Problems, func(got string) bool { return strings.HasPrefix(got, want) }) {
			t.Errorf("it does not say %q: %q", want, report.Problems)
		}
	}
	if len(report.Problems) > 5 || len(report.Notes) != 2 { // main.v1 may have two check values
		t.Errorf("got %q, %q", report.Problems, report.Notes)
	}
	p.Store.HSM.PIN = hsm.NewPIN("00000000")
	if err := report.Compare(t.Context(), p.Store.HSM); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("wrong PIN: got %v", err)
	}
}

func TestObjectsAreComparedWhole(t *testing.T) {
	then := sample(t).Keys[0]
	for name, tc := range map[string]struct {
		change func(*Object)
		want   string
	}{
		"attribute":        {func(o *Object) { o.Attributes[1].Value = "true" }, "CKA_EXTRACTABLE of the secret key \"p-main.v1\" is true, and was false"},
		"attribute hidden": {func(o *Object) { o.Attributes = o.Attributes[:1] }, "CKA_EXTRACTABLE of the secret key \"p-main.v1\" is not told"},
		"check value":      {func(o *Object) { o.CheckValues[0].Value = "000000" }, "is 000000, and was a1b2c3"},
		"size":             {func(o *Object) { o.Bits = 128 }, "size of the secret key"},
		"class":            {func(o *Object) { o.Class = "public key" }, "is gone"},
		"nothing":          {func(*Object) {}, ""},
	} {
		now := then
		o := then.Objects[0]
		o.Attributes, o.CheckValues = slices.Clone(o.Attributes), slices.Clone(o.CheckValues)
		tc.change(&o)
		now.Objects = []Object{o}
		r := &Report{}
		r.compareObjects(then, now)
		if (len(r.Problems) == 0) != (tc.want == "") || !strings.Contains(strings.Join(r.Problems, "\n"), tc.want) {
			t.Errorf("%s: got %q, want %q", name, r.Problems, tc.want)
		}
	}
}
