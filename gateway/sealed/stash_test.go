package sealed

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

var testUpload = UploadName{Object: testName, UploadID: "upload-1"}

func TestStashComesBack(t *testing.T) {
	for _, want := range []Stash{
		{DEK: testKey(t, 1), Created: testCreated},
		{DEK: testKey(t, 1), Created: testCreated, Algorithm: SHA256, Scope: Composite},
		{DEK: testKey(t, 1), Created: testCreated, Algorithm: CRC64NVME, Scope: FullObject},
	} {
		b, err := Suite{}.SealStash(testKeyID, testKey(t, 9), testUpload, want)
		if err != nil || len(b) != 130 {
			t.Fatalf("got %d bytes, %v", len(b), err)
		}
		if id, err := StashKeyID(b); err != nil || id != testKeyID {
			t.Errorf("got key id %x, %v", id, err)
		}
		got, err := Suite{}.OpenStash(b, testKey(t, 9), testUpload)
		if err != nil || !got.DEK.Equal(want.DEK) || !got.Created.Equal(want.Created) || got.Algorithm != want.Algorithm || got.Scope != want.Scope {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestStashIsBoundToItsUpload(t *testing.T) {
	good, err := Suite{}.SealStash(testKeyID, testKey(t, 9), testUpload, Stash{DEK: testKey(t, 1), Created: testCreated})
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[100] ^= 1
	envelope := testName
	envelope.Key = "another"
	for _, tt := range []struct {
		name  string
		stash []byte
		key   Key
		in    UploadName
	}{
		{"another key", good, testKey(t, 8), testUpload},
		{"another upload", good, testKey(t, 9), UploadName{Object: testName, UploadID: "upload-2"}},
		{"another object", good, testKey(t, 9), UploadName{Object: envelope, UploadID: "upload-1"}},
		{"flipped", flipped, testKey(t, 9), testUpload},
		{"cut", good[:len(good)-1], testKey(t, 9), testUpload},
		{"empty", nil, testKey(t, 9), testUpload},
	} {
		_, err := Suite{}.OpenStash(tt.stash, tt.key, tt.in)
		wantError(t, tt.name, err, ErrCorrupt)
	}
}

func TestStashIsStrict(t *testing.T) {
	for name, tt := range map[string]struct {
		st   Stash
		want error
	}{
		"no DEK":            {Stash{Created: testCreated}, ErrKey},
		"before 1970":       {Stash{DEK: testKey(t, 1), Created: time.UnixMilli(-1)}, ErrRange},
		"unknown algorithm": {Stash{DEK: testKey(t, 1), Created: testCreated, Algorithm: 99}, ErrRange},
		"unknown scope":     {Stash{DEK: testKey(t, 1), Created: testCreated, Algorithm: SHA1, Scope: 2}, ErrRange},
		"composite of none": {Stash{DEK: testKey(t, 1), Created: testCreated, Scope: Composite}, ErrRange},
	} {
		_, err := Suite{}.SealStash(testKeyID, testKey(t, 9), testUpload, tt.st)
		wantError(t, name, err, tt.want)
	}
	good := append(testBytes(1, 32), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0)
	for name, pt := range map[string][]byte{
		"cut":               good[:41],
		"longer":            append(bytes.Clone(good), 0),
		"no DEK":            append(make([]byte, 32), good[32:]...),
		"time":              append(append(bytes.Clone(good[:32]), 0x80), good[33:]...),
		"unknown algorithm": append(bytes.Clone(good[:40]), 99, 0),
	} {
		_, err := decodeStash(pt)
		wantError(t, name, err, ErrCorrupt)
	}
	if _, err := decodeStash(good); err != nil {
		t.Error(err)
	}
}

func TestStashDir(t *testing.T) {
	const want = ".chatelaine/uploads/ba7816bf8f01cfea414140de5dae2223/" // SHA-256 of "abc", FIPS 180-2
	if got := StashDir("abc"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err := StashKeyID(nil)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
