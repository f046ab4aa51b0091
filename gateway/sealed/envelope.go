package sealed

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
)

const (
	envelopePrefix = "1."
	suiteID        = 1  // AES-256-GCM messages of §1
	envelopeFixed  = 74 // bytes of E before the TLVs
	noLength       = math.MaxUint64
)

// Kind tells how an object was uploaded.
type Kind uint8

// The two kinds of §3.
const (
	Single    Kind = 0 // one PUT: one part, numbered 0; the envelope knows its length
	Multipart Kind = 1 // parts 1 to MaxParts; only the trailer knows the length
)

// KeyID names a bucket key. It is public.
type KeyID [16]byte

// Space is the UUID that a bucket was given when it was registered, as its 16 raw bytes.
type Space [16]byte

// ObjectName is what an envelope is bound to: an envelope opens for this name only.
type ObjectName struct {
	Space Space
	Key   string // the object key as the client names it
}

// Envelope is what the metadata header of an object says.
type Envelope struct {
	Kind       Kind
	DEK        Key
	Length     int64     // plaintext bytes; for Multipart ignored when sealed and -1 when opened
	Salt       Salt      // of the part of a Single object (Sealer.Salt); for Multipart ignored and zero
	Created    time.Time // kept to the millisecond, opened in UTC
	Attributes Attributes
}

// Attributes are the headers that a client gave to an object. Empty means absent.
type Attributes struct {
	ContentType        string
	ContentEncoding    string
	ContentDisposition string
	ContentLanguage    string
	CacheControl       string
	Expires            string
	Redirect           string     // x-amz-website-redirect-location
	UserMetadata       []Pair     // in the order given
	Checksums          []Checksum // of the plaintext
	MD5                []byte     // 16 bytes, of the plaintext; nil if not computed
	// LateChecksum says that the trailer carries a checksum of this algorithm: it came after the body. NoChecksum if not.
	LateChecksum Algorithm
	// LateMD5 says that the trailer carries an MD5 for the ETag (Table.MD5).
	LateMD5 bool

	unknown []byte // TLVs of later versions, kept when the envelope is sealed again for a copy
}

// Pair is one user metadata entry; Name is without the x-amz-meta- prefix.
type Pair struct{ Name, Value string }

// Algorithm names a checksum algorithm by its number in §3.
type Algorithm uint8

// Checksum algorithms.
const (
	NoChecksum Algorithm = iota
	CRC32
	CRC32C
	CRC64NVME
	SHA1
	SHA256
	SHA512
	MD5
	XXHASH64
	XXHASH3
	XXHASH128
)

// Scope tells what a checksum is computed over.
type Scope uint8

// The scopes of a checksum, S3's checksum types.
const (
	FullObject Scope = 0 // the plaintext
	Composite  Scope = 1 // the checksums of the parts
)

// Checksum is a checksum of the plaintext, as raw bytes.
type Checksum struct {
	Algorithm Algorithm
	Scope     Scope
	Value     []byte
	Parts     int // number of parts under a Composite value, 0 otherwise
}

// SealEnvelope makes the value of the x-amz-meta-cho1 header. id names bucketKey and is visible.
// It fails with ErrTooLarge if the header would exceed MaxHeader bytes, and with ErrRange for what the format cannot say.
func (s Suite) SealEnvelope(id KeyID, bucketKey Key, name ObjectName, e Envelope) (header string, err error) {
	pt, err := e.encode()
	defer clear(pt)
	if err != nil {
		return "", err
	}
	msg, err := s.sealMessage(bucketKey, envelopeContext(name), pt)
	if err != nil {
		return "", err
	}
	header = envelopePrefix + base64.RawURLEncoding.EncodeToString(append(id[:], msg...))
	if len(header) > MaxHeader {
		return "", fmt.Errorf("%w: header of %d bytes, at most %d", ErrTooLarge, len(header), MaxHeader)
	}
	return header, nil
}

// EnvelopeKeyID says which bucket key opens header. Nothing is authenticated by that.
// It fails with ErrUnsupported for another version, with ErrCorrupt for what is no envelope.
func EnvelopeKeyID(header string) (KeyID, error) {
	id, _, err := splitEnvelope(header)
	return id, err
}

// OpenEnvelope opens a header that was sealed for this name under this key; otherwise it fails with ErrCorrupt.
func (s Suite) OpenEnvelope(header string, bucketKey Key, name ObjectName) (Envelope, error) {
	_, msg, err := splitEnvelope(header)
	if err != nil {
		return Envelope{}, err
	}
	pt, err := s.openMessage(bucketKey, envelopeContext(name), msg)
	if err != nil {
		return Envelope{}, fmt.Errorf("%w (envelope)", err)
	}
	defer clear(pt)
	return decodeEnvelope(pt)
}

// splitEnvelope parts a header into key id and message. Every envelope has one spelling only.
func splitEnvelope(header string) (id KeyID, msg []byte, err error) {
	text, ours := strings.CutPrefix(header, envelopePrefix)
	if !ours {
		return id, nil, fmt.Errorf("%w: envelope does not begin with %q", ErrUnsupported, envelopePrefix)
	}
	if len(header) > MaxHeader {
		return id, nil, fmt.Errorf("%w: envelope of %d bytes", ErrCorrupt, len(header))
	}
	b, err := decodeBase64(text)
	if err != nil || len(b) < len(id)+HeaderSize+TagSize {
		return id, nil, fmt.Errorf("%w: no envelope in %d bytes", ErrCorrupt, len(header))
	}
	return KeyID(b), b[len(id):], nil
}

// decodeBase64 is strict where encoding/base64 is not: it takes no line breaks and no stray bits.
func decodeBase64(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, base64.CorruptInputError(strings.IndexAny(text, "\r\n"))
	}
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

// encode is E of §3. What it returns is secret, also together with an error.
func (e *Envelope) encode() ([]byte, error) {
	dek, err := e.DEK.bytes()
	if err != nil {
		return nil, err
	}
	length, salt := uint64(noLength), Salt{}
	switch {
	case e.Kind == Single && (e.Length < 0 || e.Length > MaxPartSize || e.Salt.IsZero()):
		return nil, fmt.Errorf("%w: envelope for %d bytes, salt %t", ErrRange, e.Length, !e.Salt.IsZero())
	case e.Kind == Single:
		length, salt = uint64(e.Length), e.Salt
	case e.Kind != Multipart:
		return nil, fmt.Errorf("%w: kind %d", ErrRange, e.Kind)
	}
	created := e.Created.UnixMilli()
	if created < 0 {
		return nil, fmt.Errorf("%w: created before 1970", ErrRange)
	}
	b := make([]byte, 0, MaxHeader)
	b = append(append(b, suiteID, byte(e.Kind)), dek...)
	b = append(binary.BigEndian.AppendUint64(b, length), salt[:]...)
	return e.Attributes.append(binary.BigEndian.AppendUint64(b, uint64(created)))
}

// decodeEnvelope reads E of §3.
func decodeEnvelope(b []byte) (e Envelope, err error) {
	if len(b) < envelopeFixed {
		return Envelope{}, fmt.Errorf("%w: envelope of %d bytes", ErrCorrupt, len(b))
	}
	if b[0] != suiteID {
		return Envelope{}, fmt.Errorf("%w: suite %d", ErrUnsupported, b[0])
	}
	length, created := binary.BigEndian.Uint64(b[34:]), binary.BigEndian.Uint64(b[66:])
	e = Envelope{Kind: Kind(b[1]), Length: int64(length), Salt: Salt(b[42:66])}
	single := e.Kind == Single && length <= MaxPartSize && !e.Salt.IsZero()
	multipart := e.Kind == Multipart && length == noLength && e.Salt.IsZero()
	if single == multipart || created > math.MaxInt64 {
		return Envelope{}, fmt.Errorf("%w: envelope of kind %d", ErrCorrupt, b[1])
	}
	e.Created = time.UnixMilli(int64(created)).UTC()
	if e.DEK, err = NewKey(b[2:34]); err != nil {
		return Envelope{}, fmt.Errorf("%w: envelope without a DEK", ErrCorrupt)
	}
	if err := e.Attributes.parse(b[envelopeFixed:]); err != nil {
		return Envelope{}, err
	}
	return e, nil
}
