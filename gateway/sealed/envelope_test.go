package sealed

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	testSpace   = Space(testBytes(20, 16))
	testKeyID   = KeyID(testBytes(21, 16))
	testName    = ObjectName{Space: testSpace, Key: "a/b c+%2F/ü"}
	testCreated = time.UnixMilli(1_800_000_000_123).UTC()
)

func testEnvelope(t testing.TB) Envelope {
	return Envelope{
		Kind: Single, DEK: testKey(t, 1), Length: 12345, Salt: Salt(testBytes(2, 24)), Created: testCreated,
		Attributes: Attributes{
			ContentType: "text/plain", ContentEncoding: "gzip", ContentDisposition: "attachment", ContentLanguage: "de", CacheControl: "no-cache",
			Expires: "Thu, 01 Dec 1994 16:00:00 GMT", Redirect: "https://example.com/",
			UserMetadata: []Pair{{"b", "2"}, {"a", ""}, {"", "x"}},
			Checksums:    []Checksum{{Algorithm: CRC32, Value: []byte("1234")}, {Algorithm: SHA256, Scope: Composite, Value: testBytes(3, 32), Parts: 9999}},
			MD5:          testBytes(4, 16), LateChecksum: CRC32C, LateMD5: true,
		},
	}
}

// equalEnvelopes compares all but the DEK by value.
func equalEnvelopes(a, b Envelope) bool {
	same := a.DEK.Equal(b.DEK)
	a.DEK, b.DEK = Key{}, Key{}
	return same && reflect.DeepEqual(a, b)
}

func TestEnvelopeComesBack(t *testing.T) {
	bk := testKey(t, 9)
	full := testEnvelope(t)
	bare := full
	bare.Attributes = Attributes{}
	multi := full
	multi.Kind, multi.Length, multi.Salt = Multipart, -1, Salt{}
	for name, want := range map[string]Envelope{"full": full, "bare": bare, "multipart": multi} {
		header, err := Suite{}.SealEnvelope(testKeyID, bk, testName, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Suite{}.OpenEnvelope(header, bk, testName)
		if err != nil || !equalEnvelopes(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
		if id, err := EnvelopeKeyID(header); err != nil || id != testKeyID {
			t.Errorf("%s: got key id %x, %v", name, id, err)
		}
	}
}

func TestEnvelopeOpensOnlyForItsNameAndKey(t *testing.T) {
	bk := testKey(t, 9)
	header, err := Suite{}.SealEnvelope(testKeyID, bk, testName, testEnvelope(t))
	if err != nil {
		t.Fatal(err)
	}
	otherSpace := testName
	otherSpace.Space[15] ^= 1
	last := header[len(header)-1:]
	for _, tt := range []struct {
		name   string
		header string
		key    Key
		object ObjectName
		want   error
	}{
		{"another key", header, testKey(t, 8), testName, ErrCorrupt},
		{"no key", header, Key{}, testName, ErrKey},
		{"another object", header, bk, ObjectName{Space: testSpace, Key: testName.Key + "x"}, ErrCorrupt},
		{"another space", header, bk, otherSpace, ErrCorrupt},
		{"stripped", "", bk, testName, ErrUnsupported},
		{"another version", "2" + header[1:], bk, testName, ErrUnsupported},
		{"cut", header[:len(header)-4], bk, testName, ErrCorrupt},
		{"cut to the id", header[:24], bk, testName, ErrCorrupt},
		{"longer", header + "AAAA", bk, testName, ErrCorrupt},
		{"padded", header + "=", bk, testName, ErrCorrupt},
		{"line break", header[:50] + "\n" + header[50:], bk, testName, ErrCorrupt},
		{"other base64", header[:50] + "+" + header[51:], bk, testName, ErrCorrupt},
		{"too long", header + strings.Repeat("A", MaxHeader), bk, testName, ErrCorrupt},
		{"flipped", header[:len(header)-1] + map[bool]string{true: "B", false: "A"}[last == "A"], bk, testName, ErrCorrupt},
	} {
		_, err := Suite{}.OpenEnvelope(tt.header, tt.key, tt.object)
		wantError(t, tt.name, err, tt.want)
	}
}

func TestEnvelopeLimits(t *testing.T) {
	seal := func(change func(*Envelope)) (string, error) {
		e := testEnvelope(t)
		e.Attributes = Attributes{}
		change(&e)
		return Suite{}.SealEnvelope(testKeyID, testKey(t, 9), testName, e)
	}
	value := func(n int) func(*Envelope) {
		return func(e *Envelope) { e.Attributes.UserMetadata = []Pair{{Name: "n", Value: strings.Repeat("v", n)}} }
	}
	most := MaxHeader*3/4 - 16 - HeaderSize - envelopeFixed - TagSize - tlvHeadSize - 4 - 1 - 2
	header, err := seal(value(most))
	if err != nil || len(header) > MaxHeader {
		t.Errorf("largest: got %d bytes, %v", len(header), err)
	}
	for name, tt := range map[string]struct {
		change func(*Envelope)
		want   error
	}{
		"too large":            {value(most + 4), ErrTooLarge},
		"beyond a TLV":         {value(1 << 16), ErrTooLarge},
		"no DEK":               {func(e *Envelope) { e.DEK = Key{} }, ErrKey},
		"no salt":              {func(e *Envelope) { e.Salt = Salt{} }, ErrRange},
		"negative length":      {func(e *Envelope) { e.Length = -1 }, ErrRange},
		"too long":             {func(e *Envelope) { e.Length = MaxPartSize + 1 }, ErrRange},
		"unknown kind":         {func(e *Envelope) { e.Kind = 2 }, ErrRange},
		"before 1970":          {func(e *Envelope) { e.Created = time.UnixMilli(-1) }, ErrRange},
		"MD5 cut":              {func(e *Envelope) { e.Attributes.MD5 = []byte{1} }, ErrRange},
		"checksum cut":         {checksum(Checksum{Algorithm: SHA1, Value: []byte{1}}), ErrRange},
		"no algorithm":         {checksum(Checksum{}), ErrRange},
		"half a SHA-512":       {checksum(Checksum{Algorithm: SHA512, Value: make([]byte, 32)}), ErrRange},
		"unknown algorithm":    {checksum(Checksum{Algorithm: XXHASH128 + 1, Value: make([]byte, 16)}), ErrRange},
		"unknown scope":        {checksum(Checksum{Algorithm: CRC32, Value: []byte("1234"), Scope: 2}), ErrRange},
		"composite of nothing": {checksum(Checksum{Algorithm: CRC32, Value: []byte("1234"), Scope: Composite}), ErrRange},
		"parts of a whole":     {checksum(Checksum{Algorithm: CRC32, Value: []byte("1234"), Parts: 1}), ErrRange},
	} {
		_, err := seal(tt.change)
		wantError(t, name, err, tt.want)
	}
}

func checksum(c Checksum) func(*Envelope) {
	return func(e *Envelope) { e.Attributes.Checksums = []Checksum{c} }
}

// TestEnvelopePlaintextIsStrict seals what no writer of ours would.
func TestEnvelopePlaintextIsStrict(t *testing.T) {
	e := testEnvelope(t)
	e.Attributes = Attributes{}
	good, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	set := func(at int, b byte) []byte {
		out := append([]byte(nil), good...)
		out[at] = b
		return out
	}
	spliced := func(pieces ...[]byte) []byte { return append(good[:1:1], bytes.Join(pieces, nil)...) }
	tlv := func(b ...byte) []byte { return append(append([]byte(nil), good...), b...) }
	for _, tt := range []struct {
		name string
		pt   []byte
		want error
	}{
		{"as it should be", good, nil},
		{"cut", good[:envelopeFixed-1], ErrCorrupt},
		{"another suite", set(0, 2), ErrUnsupported},
		{"unknown kind", set(1, 2), ErrCorrupt},
		{"multipart with a length", set(1, 1), ErrCorrupt},
		{"multipart with a salt", spliced(append([]byte{byte(Multipart)}, good[2:34]...), bytes.Repeat([]byte{0xff}, 8), good[42:]), ErrCorrupt},
		{"multipart with a length and no salt", spliced(append([]byte{byte(Multipart)}, good[2:42]...), make([]byte, SaltSize), good[66:]), ErrCorrupt},
		{"beyond 5 GiB", set(34, 1), ErrCorrupt},
		{"time beyond 63 bits", set(66, 0x80), ErrCorrupt},
		{"no salt", append(append(append([]byte(nil), good[:42]...), make([]byte, 24)...), good[66:]...), ErrCorrupt},
		{"no DEK", append(append(append([]byte(nil), good[:2]...), make([]byte, 32)...), good[34:]...), ErrCorrupt},
		{"TLV without length", tlv(1, 0), ErrCorrupt},
		{"TLV cut", tlv(1, 0, 5, 'a'), ErrCorrupt},
		{"empty content type", tlv(1, 0, 0), ErrCorrupt},
		{"two content types", tlv(1, 0, 1, 'a', 1, 0, 1, 'b'), ErrCorrupt},
		{"pair cut", tlv(16, 0, 3, 0, 0, 0), ErrCorrupt},
		{"name beyond the pair", tlv(16, 0, 5, 0, 0, 0, 2, 'a'), ErrCorrupt},
		{"huge name", tlv(16, 0, 4, 255, 255, 255, 255), ErrCorrupt},
		{"checksum cut", tlv(32, 0, 1, 1), ErrCorrupt},
		{"checksum of no algorithm", tlv(32, 0, 6, 0, 0, 1, 2, 3, 4), ErrCorrupt},
		{"composite cut", tlv(32, 0, 3, 1, 1, 9), ErrCorrupt},
		{"MD5 cut", tlv(33, 0, 1, 1), ErrCorrupt},
		{"late checksum cut", tlv(34, 0, 0), ErrCorrupt},
		{"late checksum of none", tlv(34, 0, 1, 0), ErrCorrupt},
		{"two late checksums", tlv(34, 0, 1, 1, 34, 0, 1, 2), ErrCorrupt},
		{"unknown", tlv(127, 0, 1, 1), nil},
		{"unknown and critical", tlv(128, 0, 1, 1), ErrUnsupported},
	} {
		if _, err := decodeEnvelope(tt.pt); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestUnknownAttributesSurviveACopy(t *testing.T) {
	e := testEnvelope(t)
	pt, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	pt = append(pt, 99, 0, 3, 'n', 'e', 'w', 100, 0, 0)
	later, err := decodeEnvelope(pt)
	if err != nil {
		t.Fatal(err)
	}
	again, err := later.encode()
	if err != nil || string(again) != string(pt) {
		t.Errorf("got %x, %v, want %x", again, err, pt)
	}
}

// TestEnvelopeThatIsTooLongDoesNotOpen seals one, under the right key, that no writer of ours would.
func TestEnvelopeThatIsTooLongDoesNotOpen(t *testing.T) {
	e := testEnvelope(t)
	for size, want := range map[int]error{1: nil, MaxHeader: ErrCorrupt} {
		e.Attributes = Attributes{UserMetadata: []Pair{{Name: "n", Value: strings.Repeat("v", size)}}}
		pt, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		msg, err := Suite{}.sealMessage(testKey(t, 9), envelopeContext(testName), pt)
		if err != nil {
			t.Fatal(err)
		}
		header := envelopePrefix + base64.RawURLEncoding.EncodeToString(append(testKeyID[:], msg...))
		_, err = Suite{}.OpenEnvelope(header, testKey(t, 9), testName)
		wantError(t, fmt.Sprintf("a value of %d bytes", size), err, want)
	}
}

func TestEnvelopeSaysNothingInClear(t *testing.T) {
	e := testEnvelope(t)
	header, err := Suite{}.SealEnvelope(testKeyID, testKey(t, 9), testName, e)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(header, envelopePrefix))
	if err != nil || strings.Contains(string(raw), "text/plain") || strings.Contains(string(raw), string(testBytes(1, 32))) {
		t.Errorf("the header shows what it should hide (%v)", err)
	}
}
