package sealed

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestWhatIsSealedHasOneSpellingOnly(t *testing.T) {
	for _, text := range []string{"AB", "AAB", "AA\n", "AA!", "AA=="} {
		if b, err := decodeBase64(text); err == nil {
			t.Errorf("%q: got %x, want an error", text, b)
		}
	}
	key, name := testKey(t, 1), ObjectName{Key: "k"}
	e := Envelope{Kind: Multipart, DEK: testKey(t, 2), Created: time.UnixMilli(1)}
	header, err := Suite{}.SealEnvelope(KeyID{1}, key, name, e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Suite{}).OpenEnvelope(header, key, name); err != nil {
		t.Fatal(err)
	}
	if _, err := (Suite{}).OpenEnvelope(header+"!", key, name); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an envelope with a letter more: got %v, want ErrCorrupt", err)
	}
	at := TokenPlace{UploadID: "u", Number: 1, ETag: "e"}
	token, err := Suite{}.SealToken(e.DEK, at, Part{Number: 1, Salt: Salt{1}, HasCRC: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{token + "!", "AAAA", ""} {
		if p, err := (Suite{}).OpenToken(e.DEK, at, text); !errors.Is(err, ErrToken) {
			t.Errorf("token %.20q: got %v and %v, want ErrToken", text, p, err)
		}
	}
	md5, err := appendTLV(nil, nil, tlvMD5, make([]byte, md5Size))
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Attributes).parse(bytes.Repeat(md5, 2)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("two MD5s: got %v, want ErrCorrupt", err)
	}
}
