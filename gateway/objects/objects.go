// Package objects is the service on plaintext objects: what S3 calls put, get,
// head, copy, list and multipart, done with sealed bytes on a backends.Store.
//
// Above it there is plaintext, below it there is none. It refuses to know HTTP,
// XML and signatures, and who may do what: by the time it is called, that is
// decided.
package objects

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// Errors that callers tell apart, beside those of backends, keys and sealed, which
// come through wrapped.
var (
	// ErrReserved: the key lies under ReservedPrefix.
	ErrReserved = errors.New("key is reserved for the gateway")
	// ErrKeyName: the key is empty, not UTF-8 or longer than MaxKey.
	ErrKeyName = errors.New("invalid object key")
	// ErrNotSealed: the stored object has no valid envelope; its bytes are not ours
	// and are never passed on.
	ErrNotSealed = errors.New("object was not sealed by this gateway")
	// ErrMetadataTooLarge: attributes and metadata do not fit into the envelope.
	ErrMetadataTooLarge = errors.New("metadata is too large")
	// ErrBodyTooLarge: more than MaxPut plaintext bytes.
	ErrBodyTooLarge = errors.New("body is too large")
	// ErrPartNumber: not 1 to MaxPartNumber.
	ErrPartNumber = errors.New("part number out of range")
	// ErrPartOrder: Complete's part numbers do not increase.
	ErrPartOrder = errors.New("parts are not in ascending order")
	// ErrChecksumMissing: a part of a composite checksum is listed without its own. It
	// comes in a *ChecksumError.
	ErrChecksumMissing = errors.New("part is listed without its checksum")
	// ErrChecksumAlgorithm: a part, or its entry in Complete's list, states a checksum
	// by another algorithm than its upload's, or none where it needs one. It comes in
	// a *ChecksumError.
	ErrChecksumAlgorithm = errors.New("checksum is not by the upload's algorithm")
	// ErrChecksumType: Complete speaks of another type of checksum than the upload
	// has. It comes in a *ChecksumError.
	ErrChecksumType = errors.New("checksum is not of the upload's type")
	// ErrChecksumMismatch: a checksum given at Complete is not that of the parts.
	ErrChecksumMismatch = errors.New("checksum does not match")
	// ErrSizeMismatch: x-amz-mp-object-size is not the sum of the parts.
	ErrSizeMismatch = errors.New("object size does not match the parts")
	// ErrNoStore: no backend of that name is offered.
	ErrNoStore = errors.New("no such backend is offered")
	// ErrUnsupported: the store cannot do what was asked.
	ErrUnsupported = errors.New("not supported by this bucket's backend")
)

const (
	// ReservedPrefix begins the names of the gateway's own objects.
	ReservedPrefix = ".chatelaine/"
	// MaxKey is the longest object key, in bytes of UTF-8.
	MaxKey = 1024
	// MaxPartNumber is the highest part number, S3's.
	MaxPartNumber = sealed.MaxParts
)

// Reserved says whether a key belongs to the gateway.
func Reserved(key string) bool { return strings.HasPrefix(key, ReservedPrefix) }

// Attributes are what a client says of an object beside its bytes. Empty means
// not given. Names in Metadata are lower case, without x-amz-meta-.
type Attributes struct {
	ContentType, ContentEncoding, ContentDisposition string
	ContentLanguage, CacheControl, Expires           string
	// Redirect is x-amz-website-redirect-location, which a copy never takes over.
	Redirect string
	Metadata map[string]string
}

// Algorithm is a checksum algorithm by the name that S3 gives it.
type Algorithm string

// The algorithms that are verified and given back.
const (
	CRC32     Algorithm = "CRC32"
	CRC32C    Algorithm = "CRC32C"
	CRC64NVME Algorithm = "CRC64NVME"
	SHA1      Algorithm = "SHA1"
	SHA256    Algorithm = "SHA256"
	SHA512    Algorithm = "SHA512"
	MD5       Algorithm = "MD5"
	XXHASH64  Algorithm = "XXHASH64"
	XXHASH3   Algorithm = "XXHASH3"
	XXHASH128 Algorithm = "XXHASH128"
)

// Algorithms are all of them, in the order of their numbers in FORMAT.md section 3.
func Algorithms() []Algorithm {
	return []Algorithm{CRC32, CRC32C, CRC64NVME, SHA1, SHA256, SHA512, MD5, XXHASH64, XXHASH3, XXHASH128}
}

// Checksum is a checksum of plaintext. Composite is the checksum of the parts'
// checksums, as S3 writes with "-n" behind it.
type Checksum struct {
	Algorithm Algorithm
	Composite bool
	Parts     int // of a composite: n
	Value     []byte
}

// ChecksumError says which rule of an upload's checksums was broken, and by what.
type ChecksumError struct {
	Part      int       // number of the part; 0 where it is about none
	Want, Got Algorithm // the upload's, and what was stated: "" for none
	Composite bool      // the upload's type
	Err       error     // ErrChecksumMissing, ErrChecksumAlgorithm or ErrChecksumType
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("objects: checking part %d against %s: %v: %q", e.Part, e.Want, e.Err, e.Got)
}

// Unwrap returns Err.
func (e *ChecksumError) Unwrap() error { return e.Err }

// SizeError says which size Complete computed. It unwraps to ErrSizeMismatch.
type SizeError struct{ Stated, Computed int64 } // plaintext bytes

func (e *SizeError) Error() string {
	return fmt.Sprintf("objects: checking the size: %v: %d bytes, not %d", ErrSizeMismatch, e.Computed, e.Stated)
}

// Unwrap returns ErrSizeMismatch.
func (*SizeError) Unwrap() error { return ErrSizeMismatch }

// Stat is what there is to say of an object. ETag is the visible one, unquoted.
type Stat struct {
	Key      string
	Size     int64 // plaintext bytes
	ETag     string
	Modified time.Time
	Version  string
	Class    string
	TagCount int
	Lock     backends.Lock
	Attributes
	Checksums []Checksum
	Parts     int // 0 for an object of a single PUT
	KEK       string
	// Plain: it is not sealed yet, as its bucket is being adopted.
	Plain bool
}

// PutRequest asks for an object to be stored.
type PutRequest struct {
	Bucket keys.Bucket
	Key    string
	// Body yields exactly Size plaintext bytes and then io.EOF, or any other error
	// when the signature, length or a checksum is wrong: the object then never
	// comes to exist and Put returns that error, wrapped.
	Body io.Reader
	Size int64
	Attributes
	// Checksums are known before the body has been read (from headers). They have
	// been or will be verified by Body.
	Checksums []Checksum
	// Late names an algorithm whose value is known only once Body has returned
	// io.EOF; LateValue then gives it. Empty means none. CRC64NVME without a
	// LateValue is computed here, where sealing does so anyway.
	Late      Algorithm
	LateValue func() []byte
	// MD5 is the body's, where the client sent Content-MD5; nil otherwise.
	MD5 []byte
	// IfMatch and IfNoneMatch hold visible ETags, unquoted, or "*".
	IfMatch, IfNoneMatch []string
	StoreAttributes

	pinned string // the backend's ETag of the object to be replaced; instead of IfMatch
}

// PutResult is the answer to Put, Complete and Copy.
type PutResult struct {
	ETag     string
	Version  string
	Modified time.Time
	Size     int64
	KEK      string
	// Checksum is what Complete combined or verified; nil where there is none.
	Checksum *Checksum
}

// ByteRange is a Range header's single range.
//
//	First >= 0, Last >= First   bytes First to Last, both inclusive
//	First >= 0, Last < 0        from First to the end
//	First < 0                   the last Last bytes (Last > 0)
type ByteRange struct{ First, Last int64 }

// GetRequest asks for an object, or a part of it.
type GetRequest struct {
	Bucket  keys.Bucket
	Key     string
	Version string
	Range   *ByteRange // nil means all of it
	// Part is a part number (1 to 10000) for S3's partNumber; 0 means none.
	Part int
	// Checksums asks for Stat.Checksums also where that costs a request.
	Checksums bool
	// Conditions hold visible ETags.
	Conditions backends.Conditions
}

// Span is what a Reader yields, or a Head speaks of: plaintext bytes in absolute
// offsets. Partial says that a range or a part was asked for (206).
type Span struct {
	Offset, Length int64
	Partial        bool
}

// RangeError is the answer to a range that begins beyond the end. It unwraps to
// backends.ErrRange.
type RangeError struct{ Size int64 } // plaintext bytes

func (*RangeError) Error() string { return "objects: range begins beyond the end" }

// Unwrap makes errors.Is(err, backends.ErrRange) true.
func (*RangeError) Unwrap() error { return backends.ErrRange }

// Entry is a row of a listing. Size is -1 for an object that is not ours.
type Entry struct {
	Key      string
	Size     int64
	ETag     string
	Modified time.Time
	Class    string
	// Algorithm and Composite are of the object's checksum. Empty where it has none,
	// or where the backend's listing does not say.
	Algorithm Algorithm
	Composite bool
}

// ListRequest asks for a page of a listing.
type ListRequest struct {
	Bucket            keys.Bucket
	Prefix, Delimiter string
	After             string // exclusive; keys and common prefixes
	Token             string // continues an earlier page; wins over After
	Limit             int    // 0 to 1000
}

// ListResult is a page of a listing. It is full unless it is the last.
type ListResult struct {
	Entries   []Entry
	Prefixes  []string
	Truncated bool
	Token     string
	// Last is the greatest key or prefix of the page: V1's NextMarker.
	Last string
}

// DeleteRequest asks for an object to be deleted.
type DeleteRequest struct {
	Bucket  keys.Bucket
	Key     string
	Version string
	IfMatch []string // visible ETags, or "*"
	// IfSize is the object's size in plaintext bytes; nil where it does not count. One
	// that is not there is deleted already, as without conditions.
	IfSize *int64
	// IfModified is when the object was last modified, as far as it says that: to the
	// second, or with a fraction to the millisecond. Zero does not count.
	IfModified time.Time
	// BypassGovernance lifts a Governance retention of the version.
	BypassGovernance bool
}

// CreateUploadRequest begins a multipart upload.
type CreateUploadRequest struct {
	Bucket keys.Bucket
	Key    string
	Attributes
	// Algorithm and Composite are the upload's checksum. Empty means that none was
	// asked for: the object then gets CRC64NVME of the whole, and its parts may state
	// any checksum or none.
	Algorithm Algorithm
	Composite bool
	StoreAttributes
}

// UploadRef names an upload of a client.
type UploadRef struct {
	Bucket keys.Bucket
	Key    string
	ID     string
}

// PutPartRequest stores one part. Body and Size are as in PutRequest.
type PutPartRequest struct {
	UploadRef
	Number int
	Body   io.Reader
	Size   int64
	// Algorithm names a checksum of the body that the client states and the caller
	// computes; Value gives it once Body has returned io.EOF. Empty means none. It must
	// be the upload's, where that has one, and be there for a composite one.
	Algorithm Algorithm
	Value     func() []byte
}

// PartResult is the answer to PutPart.
type PartResult struct {
	ETag string
	KEK  string
	// Checksum is the part's, by the upload's algorithm.
	Checksum *Checksum
	// Unasked says that it is S3's default, as the upload was asked for none.
	Unasked bool
}

// CompletePart is one entry of CompleteMultipartUpload. Checksum is the part's as
// the client states it; nil where it does not.
type CompletePart struct {
	Number    int
	ETag      string
	Checksum  []byte
	Algorithm Algorithm // of Checksum
}

// ChecksumType is what a client says of an upload's type of checksum.
type ChecksumType int

// The types, and AnyType for a client that names none.
const (
	AnyType ChecksumType = iota
	FullObjectType
	CompositeType
)

// CompleteRequest makes the object from its parts.
type CompleteRequest struct {
	UploadRef
	Parts []CompletePart
	// Size is x-amz-mp-object-size; negative means not given.
	Size int64
	// Type is the upload's type as the client states it.
	Type ChecksumType
	// Checksum is the whole object's as the client states it; nil where it does not.
	// One that is not Composite may be the value of a composite one, whose number of
	// parts the client left out.
	Checksum             *Checksum
	IfMatch, IfNoneMatch []string

	pinned string // as in PutRequest
}

// PartInfo is a row of ListParts.
type PartInfo struct {
	Number   int
	Size     int64 // plaintext bytes
	ETag     string
	Modified time.Time
	Checksum *Checksum // by the upload's algorithm; nil where it is not known
}

// PartsRequest asks for a page of an upload's parts, those above After.
type PartsRequest struct {
	UploadRef
	After, Limit int
}

// PartsResult is a page of ListParts. Next is the marker of the next page; 0 at
// the end. Algorithm is empty where the upload
// was not asked for one.
type PartsResult struct {
	Parts []PartInfo
	Next  int
	UploadChecksum
}

// UploadChecksum is what an upload was asked for; Algorithm is empty where that was
// nothing.
type UploadChecksum struct {
	Algorithm Algorithm
	Composite bool
}

// UploadsRequest asks for a page of a bucket's unfinished uploads.
type UploadsRequest struct {
	Bucket              keys.Bucket
	Prefix, Delimiter   string
	KeyMarker, IDMarker string
	Limit               int
}
