package sealed

import (
	"bytes"
	"compress/zlib"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
)

const wycheproofFile = "../../../shared/vectors/c2sp_chunked_encryption_aes_256_gcm_test.json"

// wycheproof is the part of a vector file that the tests use. Ct is zlib-compressed.
type wycheproof struct {
	NumberOfTests int
	TestGroups    []struct {
		Aead, Sha string
		Tests     []wycheproofTest
	}
}

type wycheproofTest struct {
	TcID            int `json:"tcId"`
	Comment, Result string
	Key, Ctx, Ct    hexBytes
	AeadKey         hexBytes
	BaseNonce       hexBytes
	MsgLength       int
	MsgSha512       hexBytes
	Flags           []string
}

// hexBytes are bytes that JSON holds as hexadecimal text.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func inflate(t *testing.T, b []byte) []byte {
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWycheproofVectors(t *testing.T) {
	b, err := os.ReadFile(wycheproofFile)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the folder of shared vectors is not beside the repository; our own frozen vectors run always")
	}
	if err != nil {
		t.Fatal(err)
	}
	var file wycheproof
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	run := 0
	for _, g := range file.TestGroups {
		if g.Aead != "AEAD_AES_256_GCM" || g.Sha != "SHA-512" {
			t.Fatalf("group for %s with %s", g.Aead, g.Sha)
		}
		for _, tt := range g.Tests {
			run++
			checkWycheproof(t, tt)
		}
	}
	if run != file.NumberOfTests || run == 0 {
		t.Errorf("ran %d vectors, want %d", run, file.NumberOfTests)
	}
}

func checkWycheproof(t *testing.T, tt wycheproofTest) {
	ct := inflate(t, tt.Ct)
	k, err := NewKey(tt.Key)
	var pt []byte
	if err == nil {
		pt, err = Suite{}.openMessage(k, tt.Ctx, ct)
	}
	if tt.Result == "invalid" {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrKey) {
			t.Errorf("%d %s: got %v, want an error", tt.TcID, tt.Comment, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%d %s: %v", tt.TcID, tt.Comment, err)
		return
	}
	if sum := sha512.Sum512(pt); len(pt) != tt.MsgLength || !bytes.Equal(sum[:], tt.MsgSha512) {
		t.Errorf("%d %s: got %d bytes, sum %x", tt.TcID, tt.Comment, len(pt), sum)
	}
	again, err := fixedSuite(ct[:SaltSize]).sealMessage(k, tt.Ctx, pt)
	if err != nil || !bytes.Equal(again, ct) {
		t.Errorf("%d %s: sealed again it differs (%v)", tt.TcID, tt.Comment, err)
	}
}

func TestMessageOpensOnlyUnderItsKeyContextAndBytes(t *testing.T) {
	var s Suite
	ctx := []byte("context")
	for _, n := range []int{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1} {
		msg, err := s.sealMessage(testKey(t, 1), ctx, refText("message", int64(n)))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(msg)) != MessageSize(int64(n)) {
			t.Errorf("%d bytes: got a message of %d, want %d", n, len(msg), MessageSize(int64(n)))
		}
		for name, open := range map[string]func() ([]byte, error){
			"another key":     func() ([]byte, error) { return s.openMessage(testKey(t, 2), ctx, msg) },
			"another context": func() ([]byte, error) { return s.openMessage(testKey(t, 1), []byte("contexT"), msg) },
			"cut":             func() ([]byte, error) { return s.openMessage(testKey(t, 1), ctx, msg[:len(msg)-1]) },
			"longer":          func() ([]byte, error) { return s.openMessage(testKey(t, 1), ctx, append(bytes.Clone(msg), 0)) },
		} {
			if _, err := open(); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d bytes, %s: got %v, want ErrCorrupt", n, name, err)
			}
		}
	}
}

func TestNoKeyIsRefusedEverywhere(t *testing.T) {
	var s Suite
	_, err := s.sealMessage(Key{}, nil, nil)
	wantError(t, "sealing", err, ErrKey)
	_, err = s.openMessage(Key{}, nil, make([]byte, HeaderSize+TagSize))
	wantError(t, "opening", err, ErrKey)
	_, err = s.NewSealer(bytes.NewReader(nil), 0, Key{}, Options{})
	wantError(t, "NewSealer", err, ErrKey)
	_, err = s.NewTail(Key{}, []Part{{Number: 1}}, nil, nil)
	wantError(t, "NewTail", err, ErrKey)
	_, err = JoinETag(Key{}, TokenPlace{Number: 1}, Part{Number: 1, Salt: Salt{1}, HasCRC: true})
	wantError(t, "JoinETag", err, ErrKey)
}

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
