package kms

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func mirrorExample() Mirror {
	return Mirror{
		ID: KeyID{1, 2}, Space: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", Epoch: 3, KEK: "main", KEKVersion: 2,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Wrapped: []byte{9, 8, 7}, Bucket: "b", Profile: Strict, ETag: ETagMD5,
	}
}

func TestMirrorComesBackAsItWasWritten(t *testing.T) {
	want := mirrorExample()
	data, err := want.marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseMirror(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestParseMirrorRefusesWhatIsNotOne(t *testing.T) {
	good, err := mirrorExample().marshal()
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, new string) string {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	tests := map[string]string{
		"empty":          "",
		"not JSON":       "x",
		"another kind":   replaced("bucket-key/1", "bucket-key/2"),
		"unknown field":  replaced(`"epoch"`, `"surprise":1,"epoch"`),
		"no epoch":       replaced(`"epoch":3`, `"epoch":0`),
		"no version":     replaced(`"kek_version":2`, `"kek_version":0`),
		"bad KEK":        replaced(`"kek":"main"`, `"kek":"../main"`),
		"bad space":      replaced("6ba7b810", "6BA7B810"),
		"short id":       replaced(`"id":"0102`, `"id":"02`),
		"id not hex":     replaced(`"id":"0102`, `"id":"zz02`),
		"nothing in it":  replaced(`"wrapped":"CQgH"`, `"wrapped":""`),
		"something more": string(good) + "{}",
		"too long":       string(good) + strings.Repeat(" ", MaxMirror),
	}
	for name, data := range tests {
		if got, err := ParseMirror([]byte(data)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %+v, %v, want ErrInvalid", name, got, err)
		}
	}
}

func FuzzParseMirror(f *testing.F) {
	good, err := mirrorExample().marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"chatelaine":"bucket-key/1"}`))
	copied := mirrorExample()
	copied.Recovery = &RecoveryCopy{KEK: "safe", KEKVersion: 1, Wrapped: []byte{6}}
	if good, err = copied.marshal(); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	copied.Recovery = &RecoveryCopy{
		RSA: "SHA256:" + strings.Repeat("A", 43), Wrapped: []byte{6}, Signer: make([]byte, 32), Signature: make([]byte, 64),
	}
	if good, err = copied.marshal(); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMirror(data)
		if err != nil {
			return
		}
		out, err := m.marshal()
		if errors.Is(err, ErrInvalid) {
			return // escaping made it longer than a record may be
		}
		if err != nil {
			t.Fatalf("%s parses but does not marshal: %v", data, err)
		}
		again, err := ParseMirror(out)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("got %+v, %v, want %+v", again, err, m)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	item, err := put("keks/main", KEK{Name: "main", Versions: []KEKVersion{{Number: 1, State: Active}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(item.Value)
	f.Add([]byte(`{"schema":2,"record":{}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		s, err := decode[KEK](Item{Key: "keks/x", Value: value, Revision: 1})
		if err != nil {
			return
		}
		if _, err := put("keks/x", s.record); err != nil {
			t.Fatalf("%s decodes but does not encode: %v", value, err)
		}
	})
}

func TestDecodeRefusesANewerSchema(t *testing.T) {
	_, err := decode[KEK](Item{Key: "keks/x", Value: []byte(`{"schema":2,"record":{}}`)})
	if err == nil || !strings.Contains(err.Error(), "schema 2") {
		t.Errorf("got %v, want an error that names schema 2", err)
	}
}

func TestTransactionRefusesToChangeAKeyTwice(t *testing.T) {
	tests := map[string]Transaction{
		"put twice":         {Put: []Item{{Key: "a"}, {Key: "a"}}},
		"put and delete":    {Put: []Item{{Key: "a"}}, Delete: []string{"a"}},
		"put under prefix":  {Put: []Item{{Key: "a/b"}}, DeletePrefix: []string{"a/"}},
		"too many changes":  {Delete: make([]string, MaxTransaction+1)},
		"too many promises": {If: make([]Condition, MaxTransaction+1)},
	}
	for name, tx := range tests {
		if err := tx.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	good := Transaction{Put: []Item{{Key: "a"}}, Delete: []string{"b"}, DeletePrefix: []string{"c/"}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

// oneKEK is a provider that unwraps one thing.
type oneKEK struct {
	Provider
	m      Mirror
	secret []byte
}

func (p oneKEK) Unwrap(_ context.Context, ref KeyRef, b Binding, wrapped []byte) ([]byte, error) {
	own := ref == p.m.key().ref() && b == p.m.key().binding() && bytes.Equal(wrapped, p.m.Wrapped)
	copied := ref == p.m.Recovery.ref() && b == p.m.key().recoveryBinding() && bytes.Equal(wrapped, p.m.Recovery.Wrapped)
	if !own && !copied {
		return nil, ErrCorrupt
	}
	return p.secret, nil
}

func TestAMirrorOpensAsThatOfItsOwnSpaceIDAndKEKOnly(t *testing.T) {
	m := mirrorExample()
	m.Recovery = &RecoveryCopy{KEK: "recovery", KEKVersion: 1, Wrapped: []byte{5, 5}}
	if _, err := mirrorExample().OpenCopy(t.Context(), oneKEK{m: m, secret: make([]byte, 32)}); !errors.Is(err, ErrNotFound) {
		t.Errorf("without a copy: got %v, want ErrNotFound", err)
	}
	if secret, err := m.OpenCopy(t.Context(), oneKEK{m: m, secret: make([]byte, 32)}); err != nil || secret.Len() != 32 {
		t.Errorf("its copy: got %d bytes, %v", secret.Len(), err)
	}
	later := m
	later.Epoch++
	if _, err := later.OpenCopy(t.Context(), oneKEK{m: m, secret: make([]byte, 32)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the copy of another epoch: got %v, want ErrCorrupt", err)
	}
	secret, err := m.Open(t.Context(), oneKEK{m: m, secret: make([]byte, 32)})
	if err != nil || secret.Len() != 32 {
		t.Fatalf("got %d bytes, %v", secret.Len(), err)
	}
	if _, err := m.Open(t.Context(), oneKEK{m: m, secret: make([]byte, 31)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("31 bytes: got %v, want ErrCorrupt", err)
	}
	for name, change := range map[string]func(m *Mirror){
		"space": func(m *Mirror) { m.Space = "6ba7b811-9dad-11d1-80b4-00c04fd430c8" }, "id": func(m *Mirror) { m.ID[0]++ },
		"KEK": func(m *Mirror) { m.KEK = "other" }, "version": func(m *Mirror) { m.KEKVersion++ },
	} {
		changed := mirrorExample()
		change(&changed)
		if _, err := changed.Open(t.Context(), oneKEK{m: m, secret: make([]byte, 32)}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("another %s: got %v, want ErrCorrupt", name, err)
		}
	}
}
