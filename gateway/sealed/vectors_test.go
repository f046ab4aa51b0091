package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The frozen vectors, test/vectors/README.md. They were made by reference_test.go, not by the package.
const vectorDir = "../../test/vectors"

var update = flag.Bool("update", false, "write the frozen vectors anew, which is for new ones only")

// vectorObject is an object of either kind. Its plaintext is refText(Seed), cut into parts in order.
type vectorObject struct {
	Name        string       `json:"name"`
	Kind        Kind         `json:"kind"`
	DEK         hexBytes     `json:"dek"`
	Seed        string       `json:"seed"`
	Length      int64        `json:"length"`
	Parts       []vectorPart `json:"parts"`
	TrailerSalt hexBytes     `json:"trailer_salt"`
	Checksum    *vectorCheck `json:"late_checksum,omitempty"`
	MD5         hexBytes     `json:"late_md5,omitempty"`
	Plain       hexBytes     `json:"plain_sha256"`
	Stored      int64        `json:"stored"`
	Sum         hexBytes     `json:"stored_sha256"`
}

type vectorPart struct {
	Number  int      `json:"number"`
	Length  int64    `json:"length"`
	Salt    hexBytes `json:"salt"`
	Unbound bool     `json:"unbound,omitempty"`
}

type vectorCheck struct {
	Algorithm Algorithm `json:"algorithm"`
	Scope     Scope     `json:"scope"`
	Value     hexBytes  `json:"value"`
	Parts     int       `json:"parts,omitempty"`
}

func (c *vectorCheck) checksum() *Checksum {
	if c == nil {
		return nil
	}
	return &Checksum{Algorithm: c.Algorithm, Scope: c.Scope, Value: c.Value, Parts: c.Parts}
}

// reference makes the stored bytes without the package.
func (v vectorObject) reference() []byte {
	var ps []refPart
	rest := refText(v.Seed, v.Length)
	for _, p := range v.Parts {
		ps = append(ps, refPart{number: p.Number, data: rest[:p.Length], salt: p.Salt, unbound: p.Unbound})
		rest = rest[p.Length:]
	}
	var late []byte
	if c := v.Checksum; c != nil {
		late = append([]byte{byte(c.Algorithm), byte(c.Scope), 0, byte(len(c.Value))}, c.Value...)
	}
	return refObject(v.DEK, ps, v.TrailerSalt, late, v.MD5)
}

// seal makes the stored bytes with the package, from fixed salts.
func (v vectorObject) seal(t *testing.T) []byte {
	t.Helper()
	var salts [][]byte
	for _, p := range v.Parts {
		salts = append(salts, p.Salt)
	}
	s := fixedSuite(append(salts, v.TrailerSalt)...)
	dek := mustKey(t, v.DEK)
	rest := refText(v.Seed, v.Length)
	if v.Kind == Single {
		var o Options
		if v.Checksum != nil {
			o.Checksum = func() (Checksum, error) { return *v.Checksum.checksum(), nil }
		}
		if v.MD5 != nil {
			o.MD5 = func() []byte { return v.MD5 }
		}
		return mustRead(t)(s.NewSealer(bytes.NewReader(rest), v.Length, dek, o))
	}
	var stored []byte
	var ps []Part
	for _, p := range v.Parts {
		sealer, err := s.NewPartSealer(bytes.NewReader(rest[:p.Length]), p.Length, dek, p.Number, Options{})
		stored = append(stored, mustRead(t)(sealer, err)...)
		part := sealer.Part()
		if p.Unbound {
			part = Part{Number: p.Number, Length: p.Length}
		}
		ps, rest = append(ps, part), rest[p.Length:]
	}
	tail, err := s.NewTail(dek, ps, v.Checksum.checksum(), v.MD5)
	if err != nil {
		t.Fatal(err)
	}
	return append(stored, mustRead(t)(tail.Reader(), nil)...)
}

// mustRead reads all of a stream whose making may have failed.
func mustRead(t *testing.T) func(io.Reader, error) []byte {
	return func(r io.Reader, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func mustKey(t testing.TB, b []byte) Key {
	t.Helper()
	k, err := NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// table is what a reader knows of the object when it begins to read the data: for kind 1, its trailer.
func (v vectorObject) table(stored []byte, claimed int64) (*Table, error) {
	dek, err := NewKey(v.DEK)
	if err != nil {
		return nil, err
	}
	if v.Kind == Single {
		return SingleTable(Envelope{DEK: dek, Length: v.Length, Salt: Salt(v.Parts[0].Salt)}, claimed)
	}
	w, err := TrailerWindow(claimed)
	if err != nil {
		return nil, err
	}
	return Suite{}.OpenTrailer(w.slice(stored), dek, claimed)
}

// open reads the whole object as an application would.
func (v vectorObject) open(stored []byte, claimed int64) ([]byte, error) {
	table, err := v.table(stored, claimed)
	if err != nil {
		return nil, err
	}
	dek, err := NewKey(v.DEK)
	if err != nil {
		return nil, err
	}
	return object{dek: dek, stored: stored, table: table}.open(Suite{}, Window{Length: ToEnd}, 0, table.Length(), Options{})
}

func TestFrozenObjects(t *testing.T) {
	vectors := loadVectors(t, "objects.json", makeObjects)
	if len(vectors) < 30 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			stored := v.seal(t)
			checkSum(t, "sealed", stored, v.Sum)
			checkSum(t, "reference", v.reference(), v.Sum)
			if int64(len(stored)) != v.Stored || Size(v.Length) != v.Stored {
				t.Errorf("got %d bytes, size law %d, want %d", len(stored), Size(v.Length), v.Stored)
			}
			plain, err := v.open(stored, v.Stored)
			if err != nil {
				t.Fatal(err)
			}
			checkSum(t, "opened", plain, v.Plain)
			checkLate(t, v, stored)
		})
	}
}

func checkSum(t *testing.T, what string, b, want []byte) {
	t.Helper()
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:], want) {
		t.Errorf("%s: got SHA-256 %x, want %x", what, sum, want)
	}
}

func checkLate(t *testing.T, v vectorObject, stored []byte) {
	t.Helper()
	e := Envelope{DEK: mustKey(t, v.DEK), Length: v.Length, Salt: Salt(v.Parts[0].Salt)}
	table, err := Suite{}.OpenSingleTrailer(stored, e, v.Stored)
	if v.Kind == Multipart {
		table, err = v.table(stored, v.Stored)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := table.MD5(); !bytes.Equal(got, v.MD5) {
		t.Errorf("late MD5: got %x, want %x", got, v.MD5)
	}
	got, ok := table.Checksum()
	if v.Checksum == nil {
		if ok {
			t.Errorf("late checksum: got %+v, want none", got)
		}
		return
	}
	want := *v.Checksum.checksum()
	if !ok || got.Algorithm != want.Algorithm || got.Scope != want.Scope || got.Parts != want.Parts || !bytes.Equal(got.Value, want.Value) {
		t.Errorf("late checksum: got %+v, want %+v", got, want)
	}
}

// vectorEnvelope is a header and what it says.
type vectorEnvelope struct {
	Name         string        `json:"name"`
	BucketKey    hexBytes      `json:"bucket_key"`
	KeyID        hexBytes      `json:"key_id"`
	Space        hexBytes      `json:"space"`
	Key          string        `json:"key"`
	Salt         hexBytes      `json:"salt"`
	Kind         Kind          `json:"kind"`
	DEK          hexBytes      `json:"dek"`
	Length       int64         `json:"length"`
	PartSalt     hexBytes      `json:"part_salt"`
	Created      int64         `json:"created_ms"`
	Headers      []string      `json:"headers"` // values of TLV types 1 to 6
	UserMetadata []Pair        `json:"user_metadata"`
	Checksums    []vectorCheck `json:"checksums"`
	MD5          hexBytes      `json:"md5,omitempty"`
	Late         Algorithm     `json:"late_checksum,omitempty"`
	LateMD5      bool          `json:"late_md5,omitempty"` // TLV 35
	Redirect     string        `json:"redirect,omitempty"` // TLV 7
	Header       string        `json:"header"`
}

func (v vectorEnvelope) envelope(t *testing.T) Envelope {
	e := Envelope{Kind: v.Kind, DEK: mustKey(t, v.DEK), Length: v.Length, Created: time.UnixMilli(v.Created).UTC()}
	copy(e.Salt[:], v.PartSalt)
	e.Attributes = Attributes{
		ContentType: v.Headers[0], ContentEncoding: v.Headers[1], ContentDisposition: v.Headers[2], ContentLanguage: v.Headers[3],
		CacheControl: v.Headers[4], Expires: v.Headers[5], UserMetadata: v.UserMetadata, MD5: v.MD5, LateChecksum: v.Late,
		LateMD5: v.LateMD5, Redirect: v.Redirect,
	}
	for _, c := range v.Checksums {
		e.Attributes.Checksums = append(e.Attributes.Checksums, *c.checksum())
	}
	return e
}

func (v vectorEnvelope) name() ObjectName { return ObjectName{Space: Space(v.Space), Key: v.Key} }

func TestFrozenEnvelopes(t *testing.T) {
	vectors := loadVectors(t, "envelopes.json", makeEnvelopes)
	if len(vectors) < 10 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		want := v.envelope(t)
		header, err := fixedSuite(v.Salt).SealEnvelope(KeyID(v.KeyID), mustKey(t, v.BucketKey), v.name(), want)
		if err != nil || header != v.Header {
			t.Errorf("%s: got %q, %v, want %q", v.Name, header, err, v.Header)
		}
		got, err := Suite{}.OpenEnvelope(v.Header, mustKey(t, v.BucketKey), v.name())
		if want.Kind == Multipart {
			want.Length = -1
		}
		if err != nil || !equalEnvelopes(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", v.Name, got, err, want)
		}
	}
}

// vectorUpload is a stash and the ETag of one part.
type vectorUpload struct {
	Name      string    `json:"name"`
	BucketKey hexBytes  `json:"bucket_key"`
	KeyID     hexBytes  `json:"key_id"`
	Space     hexBytes  `json:"space"`
	Key       string    `json:"key"`
	UploadID  string    `json:"upload_id"`
	Salt      hexBytes  `json:"salt"`
	DEK       hexBytes  `json:"dek"`
	Created   int64     `json:"created_ms"`
	Algorithm Algorithm `json:"algorithm"`
	Scope     Scope     `json:"scope"`
	Dir       string    `json:"stash_dir"`
	Stash     hexBytes  `json:"stash"`
	Number    int       `json:"part"`
	Length    int64     `json:"part_length"`
	PartSalt  hexBytes  `json:"part_salt"`
	CRC       uint64    `json:"part_crc64nvme,string"`
	Checksum  hexBytes  `json:"part_checksum,omitempty"`
	ETag      string    `json:"backend_etag"`
	Visible   string    `json:"visible_etag"`
}

func TestFrozenUploads(t *testing.T) {
	vectors := loadVectors(t, "uploads.json", makeUploads)
	if len(vectors) < 3 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		in := UploadName{Object: ObjectName{Space: Space(v.Space), Key: v.Key}, UploadID: v.UploadID}
		st := Stash{DEK: mustKey(t, v.DEK), Created: time.UnixMilli(v.Created), Algorithm: v.Algorithm, Scope: v.Scope}
		b, err := fixedSuite(v.Salt).SealStash(KeyID(v.KeyID), mustKey(t, v.BucketKey), in, st)
		if err != nil || !bytes.Equal(b, v.Stash) || StashDir(v.UploadID) != v.Dir {
			t.Errorf("%s: got stash %x, %v", v.Name, b, err)
		}
		got, err := Suite{}.OpenStash(v.Stash, mustKey(t, v.BucketKey), in)
		if err != nil || !got.DEK.Equal(st.DEK) || !got.Created.Equal(st.Created) || got.Algorithm != v.Algorithm || got.Scope != v.Scope {
			t.Errorf("%s: got %+v, %v", v.Name, got, err)
		}
		part := Part{Number: v.Number, Length: v.Length, Salt: Salt(v.PartSalt), CRC: v.CRC, HasCRC: true, Checksum: v.Checksum}
		visible, err := JoinETag(st.DEK, TokenPlace{UploadID: v.UploadID, Number: v.Number, ETag: v.ETag}, part)
		if err != nil || visible != v.Visible {
			t.Errorf("%s: got ETag %q, %v, want %q", v.Name, visible, err, v.Visible)
		}
		backend, opened, err := OpenETag(st.DEK, v.UploadID, v.Number, v.Visible)
		if err != nil || backend != v.ETag || opened.Length != v.Length || opened.CRC != v.CRC || !bytes.Equal(opened.Checksum, v.Checksum) {
			t.Errorf("%s: got %q, %+v, %v", v.Name, backend, opened, err)
		}
	}
}

// loadVectors reads a file of frozen vectors, or writes it with -update.
func loadVectors[T any](t *testing.T, name string, build func() []T) (vectors []T) {
	t.Helper()
	path := filepath.Join(vectorDir, name)
	if *update {
		b, err := json.MarshalIndent(build(), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}
