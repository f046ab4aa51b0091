package sealed

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
)

var testPlace = TokenPlace{UploadID: "upload-1", Number: 7, ETag: "9bb58f26192e4ba00f01e2e7b136bbd8-1"}

func testPart() Part {
	return Part{Number: 7, Length: MaxPartSize, Salt: Salt(testBytes(2, 24)), CRC: 0xfedcba9876543210, HasCRC: true}
}

func TestTokenComesBack(t *testing.T) {
	for size := 0; size <= maxChecksum; size++ {
		want := testPart()
		if size > 0 {
			want.Checksum = testBytes(5, size)
		}
		visible, err := JoinETag(testKey(t, 1), testPlace, want)
		if err != nil {
			t.Fatal(err)
		}
		if ref := refToken(testBytes(1, 32), "upload-1", 7, testPlace.ETag, want.Salt[:], want.Length, want.CRC, want.Checksum); visible != ref {
			t.Errorf("got %q, want %q", visible, ref)
		}
		backend, got, err := OpenETag(testKey(t, 1), "upload-1", 7, visible)
		if err != nil || backend != testPlace.ETag || !reflect.DeepEqual(got, want) {
			t.Errorf("checksum of %d bytes: got %q, %+v, %v", size, backend, got, err)
		}
	}
}

// TestTokenIsFoundWhateverItsLetters tries salts until tokens with "-" in them have come up often.
func TestTokenIsFoundWhateverItsLetters(t *testing.T) {
	dashes := 0
	for i := range 500 {
		p := testPart()
		p.Salt, p.Checksum = Salt(testBytes(i, 24)), testBytes(i, i%(maxChecksum+1))
		visible, err := JoinETag(testKey(t, 1), testPlace, p)
		if err != nil {
			t.Fatal(err)
		}
		dashes += strings.Count(visible[len(testPlace.ETag)+1:], "-")
		backend, got, err := OpenETag(testKey(t, 1), "upload-1", 7, visible)
		if err != nil || backend != testPlace.ETag || got.Salt != p.Salt {
			t.Fatalf("%d: got %q, %v", i, backend, err)
		}
	}
	if dashes < 100 {
		t.Errorf("only %d dashes in tokens: the test tests nothing", dashes)
	}
}

func TestTokenIsBoundToItsPlace(t *testing.T) {
	visible, err := JoinETag(testKey(t, 1), testPlace, testPart())
	if err != nil {
		t.Fatal(err)
	}
	at := len(testPlace.ETag) + 1
	other := map[bool]string{true: "B", false: "A"}
	for _, tt := range []struct {
		name    string
		key     Key
		upload  string
		number  int
		visible string
		want    error
	}{
		{"as it should be", testKey(t, 1), "upload-1", 7, visible, nil},
		{"another DEK", testKey(t, 2), "upload-1", 7, visible, ErrToken},
		{"no DEK", Key{}, "upload-1", 7, visible, ErrKey},
		{"another upload", testKey(t, 1), "upload-2", 7, visible, ErrToken},
		{"another part", testKey(t, 1), "upload-1", 8, visible, ErrToken},
		{"no part", testKey(t, 1), "upload-1", 0, visible, ErrPartNumber},
		{"the same 16 bits", testKey(t, 1), "upload-1", 1<<16 + 7, visible, ErrPartNumber},
		{"another ETag", testKey(t, 1), "upload-1", 7, "x" + visible[1:], ErrToken},
		{"another salt", testKey(t, 1), "upload-1", 7, visible[:at] + other[visible[at] == 'A'] + visible[at+1:], ErrToken},
		{"another CRC", testKey(t, 1), "upload-1", 7, visible[:at+45] + other[visible[at+45] == 'A'] + visible[at+46:], ErrToken},
		{"another mac", testKey(t, 1), "upload-1", 7, visible[:len(visible)-1] + other[visible[len(visible)-1] == 'A'], ErrToken},
		{"none", testKey(t, 1), "upload-1", 7, testPlace.ETag, ErrNoToken},
		{"empty", testKey(t, 1), "upload-1", 7, "", ErrNoToken},
		{"token alone", testKey(t, 1), "upload-1", 7, visible[at:], ErrNoToken},
		{"dash and token", testKey(t, 1), "upload-1", 7, visible[at-1:], ErrNoToken},
	} {
		if _, _, err := OpenETag(tt.key, tt.upload, tt.number, tt.visible); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestTokenNeedsAWholePart(t *testing.T) {
	for name, change := range map[string]func(*Part){
		"another number": func(p *Part) { p.Number = 8 },
		"no salt":        func(p *Part) { p.Salt = Salt{} },
		"no CRC":         func(p *Part) { p.HasCRC = false },
		"negative":       func(p *Part) { p.Length = -1 },
		"too long":       func(p *Part) { p.Length = MaxPartSize + 1 },
		"checksum":       func(p *Part) { p.Checksum = make([]byte, maxChecksum+1) },
	} {
		p := testPart()
		change(&p)
		_, err := JoinETag(testKey(t, 1), testPlace, p)
		wantError(t, name, err, ErrRange)
	}
}

func TestKeptTokensComeBackAtTheirPlaceAlone(t *testing.T) {
	for _, size := range []int{0, 4, maxChecksum} {
		want := testPart()
		if size > 0 {
			want.Checksum = testBytes(5, size)
		}
		kept, err := Suite{}.SealToken(testKey(t, 1), testPlace, want)
		if err != nil || len(kept) > 232 || strings.Contains(kept, testPlace.ETag) {
			t.Fatalf("got %q, %v", kept, err)
		}
		if got, err := (Suite{}).OpenToken(testKey(t, 1), testPlace, kept); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("checksum of %d bytes: got %+v, %v", size, got, err)
		}
		for name, at := range map[string]TokenPlace{
			"another upload": {"upload-2", 7, testPlace.ETag}, "another number": {"upload-1", 8, testPlace.ETag}, "another ETag": {"upload-1", 7, "x"},
		} {
			_, err := Suite{}.OpenToken(testKey(t, 1), at, kept)
			wantError(t, name, err, ErrToken)
		}
		_, err = Suite{}.OpenToken(testKey(t, 2), testPlace, kept)
		wantError(t, "another key", err, ErrToken)
		for name, text := range map[string]string{"cut": kept[1:], "more letters that are none": kept + "!", "a line break": kept[:9] + "\n" + kept[9:]} {
			_, err = Suite{}.OpenToken(testKey(t, 1), testPlace, text)
			wantError(t, name, err, ErrToken)
		}
		_, err = Suite{}.OpenToken(Key{}, testPlace, kept)
		wantError(t, "no key", err, ErrKey)
	}
	_, err := Suite{}.SealToken(testKey(t, 1), testPlace, Part{Number: 7})
	wantError(t, "not complete", err, ErrRange)
}

// TestKeptTokensAreStrict seals claims that JoinETag and SealToken refuse.
func TestKeptTokensAreStrict(t *testing.T) {
	good, err := testPlace.claims(testPart())
	if err != nil {
		t.Fatal(err)
	}
	saltless := append(make([]byte, SaltSize), good[SaltSize:]...)
	long := bytes.Clone(good)
	binary.BigEndian.PutUint16(long[SaltSize:], MaxPartSize>>32+1)
	for _, tt := range []struct {
		name   string
		claims []byte
		want   error
	}{
		{"as it should be", good, nil},
		{"the longest checksum", append(bytes.Clone(good), make([]byte, maxChecksum)...), nil},
		{"too long a checksum", append(bytes.Clone(good), make([]byte, maxChecksum+1)...), ErrToken},
		{"too few claims", good[:tokenClaims-1], ErrToken},
		{"no salt", saltless, ErrToken},
		{"too long a part", long, ErrToken},
	} {
		msg, err := Suite{}.sealMessage(testKey(t, 1), tokenContext(testPlace), tt.claims)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Suite{}.OpenToken(testKey(t, 1), testPlace, base64.RawURLEncoding.EncodeToString(msg))
		wantError(t, tt.name, err, tt.want)
	}
}
