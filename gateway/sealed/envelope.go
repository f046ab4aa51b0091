package sealed

import "time"

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
	UserMetadata       []Pair     // in the order given
	Checksums          []Checksum // of the plaintext
	MD5                []byte     // 16 bytes, of the plaintext; nil if not computed

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
// It fails with ErrTooLarge if the header would exceed MaxHeader bytes.
func (s Suite) SealEnvelope(id KeyID, bucketKey Key, name ObjectName, e Envelope) (header string, err error) {
	return "", errSkeleton
}

// EnvelopeKeyID says which bucket key opens header. Nothing is authenticated by that.
// It fails with ErrUnsupported for another version, with ErrCorrupt for what is no envelope.
func EnvelopeKeyID(header string) (KeyID, error) {
	return KeyID{}, errSkeleton
}

// OpenEnvelope opens a header that was sealed for this name under this key; otherwise it fails with ErrCorrupt.
func (s Suite) OpenEnvelope(header string, bucketKey Key, name ObjectName) (Envelope, error) {
	return Envelope{}, errSkeleton
}
