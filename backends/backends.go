// Package backends is the contract between the gateway and the clouds that hold
// its sealed objects: a Store, what it may do beyond that, and its errors.
//
// A store moves bytes and one small set of metadata under a name. It refuses to
// know what is in them: no keys, no plaintext sizes, no client requests.
package backends

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors of the contract. A driver maps its SDK's errors to them and keeps the
// cause: fmt.Errorf("%w: %w", ErrNotFound, err). An error never proves that
// nothing happened: a Put whose answer was lost may have been applied.
var (
	ErrNotFound       = errors.New("object not found")
	ErrBucketNotFound = errors.New("bucket not found")
	ErrUploadNotFound = errors.New("upload not found")
	// ErrBucketExists: the name is taken, by this account or another.
	ErrBucketExists   = errors.New("bucket already exists")
	ErrBucketNotEmpty = errors.New("bucket is not empty")
	// ErrPrecondition: an If-Match, If-None-Match: * or If-Unmodified-Since did not hold (412).
	ErrPrecondition = errors.New("precondition failed")
	// ErrConflict: another conditional write to the key was under way (409); trying again may work.
	ErrConflict = errors.New("conflicting conditional request")
	// ErrNotModified: a Get or Head's If-None-Match or If-Modified-Since did not hold (304). It
	// comes in a *NotModified, which carries the ETag and time that the answer must have.
	ErrNotModified = errors.New("not modified")
	// ErrRange: the range begins at or beyond the end (416). It comes in a *RangeError.
	ErrRange = errors.New("range not satisfiable")
	// ErrInvalidPart: Complete names a part that is not there or has another ETag.
	ErrInvalidPart = errors.New("invalid part")
	// ErrTooSmall: a part other than the last is below the store's minimum (5 MiB on S3).
	ErrTooSmall = errors.New("part too small")
	// ErrTooLarge: body or metadata exceed what the store takes.
	ErrTooLarge = errors.New("too large for the store")
	// ErrInvalidName: the store cannot hold an object or bucket of that name.
	ErrInvalidName = errors.New("invalid name")
	// ErrInvalidTag: the store cannot hold such a tag.
	ErrInvalidTag = errors.New("invalid tag")
	// ErrDenied: the store refuses the gateway's own credentials.
	ErrDenied = errors.New("store denied access")
	// ErrUnavailable: the store does not answer, throttles or fails; it may later.
	ErrUnavailable = errors.New("store is unavailable")
	// ErrFull: the store has no space left.
	ErrFull = errors.New("store is full")
	// ErrVersionNotFound: the object has no such version.
	ErrVersionNotFound = errors.New("version not found")
	// ErrDeleteMarker: the version asked for is a delete marker (405).
	ErrDeleteMarker = errors.New("version is a delete marker")
	// ErrLocked: a retention or a legal hold forbids it.
	ErrLocked = errors.New("object is locked")
	// ErrNoLock: a retention or a legal hold in a bucket without Object Lock (400 InvalidRequest).
	ErrNoLock = errors.New("bucket has no object lock")
	// ErrBucketState: the state of the bucket's versions or lock forbids it (409 InvalidBucketState).
	ErrBucketState = errors.New("bucket is in another state")
	// ErrUnsupported: the store cannot do this at all.
	ErrUnsupported = errors.New("not supported by the store")
)

// NotModified is the ErrNotModified of a Get or Head.
type NotModified struct {
	ETag     string
	Modified time.Time
}

func (*NotModified) Error() string { return ErrNotModified.Error() }

// Unwrap makes errors.Is(err, ErrNotModified) true.
func (*NotModified) Unwrap() error { return ErrNotModified }

// RangeError is the ErrRange of a Get. Size is the stored size of the object in
// bytes, or -1 where the store did not say.
type RangeError struct{ Size int64 }

func (*RangeError) Error() string { return ErrRange.Error() }

// Unwrap makes errors.Is(err, ErrRange) true.
func (*RangeError) Unwrap() error { return ErrRange }

// MarkerError says that a delete marker was met: as ErrDeleteMarker where its
// version was asked for, else as ErrNotFound, since it is the newest.
type MarkerError struct {
	Version  string
	Modified time.Time
	Asked    bool
}

func (e *MarkerError) Error() string { return e.Unwrap().Error() }

// Unwrap makes errors.Is true for the one error that it stands for.
func (e *MarkerError) Unwrap() error {
	if e.Asked {
		return ErrDeleteMarker
	}
	return ErrNotFound
}

// ObjectID names an object, or one version of it. Key is 1 to 1024 bytes of
// UTF-8 and is used as it is: nothing is cleaned, decoded or folded. An empty
// Version means the newest.
type ObjectID struct {
	Bucket, Key, Version string
}

// Range is a part of an object in stored bytes.
//
//	Offset >= 0, Length > 0   bytes [Offset, Offset+Length), clipped at the end
//	Offset >= 0, Length < 0   from Offset to the end
//	Offset < 0                the last -Offset bytes, or all where there are fewer
//
// A nil *Range means the whole object.
type Range struct{ Offset, Length int64 }

// Attributes are what a store keeps beside the bytes.
type Attributes struct {
	ContentType string
	// Metadata has lower-case names, without the store's own prefix (x-amz-meta- on
	// S3), and values of printable ASCII. Together at most 2048 bytes.
	Metadata map[string]string
	// Tags are taken by a Tagger, Lock by a Locker; others return ErrUnsupported for
	// any. Get and Head say TagCount instead of Tags.
	Tags Tags
	Lock Lock
}

// Info is what a store says of an object without its bytes.
type Info struct {
	Key      string
	Version  string // empty where the bucket has no versions
	Size     int64  // of the whole object as stored
	ETag     string // without quotes
	Modified time.Time
	Class    string // storage class as S3 names it; empty means STANDARD
	TagCount int    // of a Tagger; 0 in listings
	// Attributes in listings are zero, but for Metadata where the store has it at
	// hand for nothing: then it is that of Head. It must not be changed.
	Attributes Attributes
	// Headers are of a Foreigner's Get and Head alone.
	Headers Headers
}

// Object is an answer to Get. The caller closes Body, also when it has not read
// all of it. Range is what Body yields, in absolute offsets: never negative, and
// the whole object where no range was asked for. A Body that ends before all of that
// has come fails: with ErrUnavailable, where a network lies between.
type Object struct {
	Info
	Range Range
	Body  io.ReadCloser
}

// Conditions are evaluated by the store, atomically with what they guard, in the
// precedence of RFC 9110 section 13.2.2. Zero fields do not count. ETags are
// without quotes; "*" stands for any existing object.
type Conditions struct {
	IfMatch           []string
	IfNoneMatch       []string
	IfModifiedSince   time.Time
	IfUnmodifiedSince time.Time
}

// Body is what is written: exactly Size bytes from Reader, which is read once and
// in pieces as large as the driver likes (1 MiB is best). A Reader that fails or
// ends early makes the write fail, and the object must not come to exist: its
// error comes back, wrapped. The driver does not close Reader.
type Body struct {
	Reader io.Reader
	Size   int64
}

// PutOptions are the extras of Put. A nil *PutOptions means none.
type PutOptions struct {
	Attributes Attributes
	// Conditions takes IfMatch and IfNoneMatch: {"*"} alone. A store that cannot
	// check them atomically with the write returns ErrUnsupported.
	Conditions Conditions
}

// GetOptions are the extras of Get and Head. A nil *GetOptions means none. Head
// ignores Range.
type GetOptions struct {
	Range      *Range
	Conditions Conditions
}

// DeleteOptions are the extras of Delete.
type DeleteOptions struct {
	// Conditions takes IfMatch alone.
	Conditions Conditions
	// BypassGovernance lifts a Governance retention of the version.
	BypassGovernance bool
}

// Written is what a store says of an object that it has just stored.
type Written struct {
	ETag     string
	Version  string
	Modified time.Time // zero where the store does not say
}

// Deleted is what a store says of a Delete. Marker is true when Version names a
// delete marker.
type Deleted struct {
	Version string
	Marker  bool
}

// ListOptions select a page of a listing. Keys come in the order of their UTF-8
// bytes.
type ListOptions struct {
	Prefix    string
	Delimiter string
	// After is exclusive: only keys, and common prefixes, above it. A common prefix
	// that equals After is not listed again.
	After string
	// Limit is the most entries and prefixes of a page; 1 to 1000; 0 means 1000.
	Limit int
	// Token goes on where an earlier page with the same other options ended
	// (Page.Token). It wins over After.
	Token string
}

// Page is a page of a listing. Entries and Prefixes are each sorted.
type Page struct {
	Entries  []Info
	Prefixes []string
	// Truncated says that there is more; then Token continues with it.
	Truncated bool
	Token     string
}

// BucketInfo is a row of ListBuckets.
type BucketInfo struct {
	Name    string
	Created time.Time
}

// Store holds sealed objects in buckets. All methods may run concurrently, on the
// same key too. A cancelled context ends a call with the context's error. Every
// driver passes backendtest, and backendtest is the contract.
type Store interface {
	// CreateBucket: ErrBucketExists when there is one already, whoever owns it.
	CreateBucket(ctx context.Context, bucket string) error
	// DeleteBucket: ErrBucketNotFound, ErrBucketNotEmpty. Unfinished uploads do
	// not keep a bucket; they are aborted.
	DeleteBucket(ctx context.Context, bucket string) error
	// HeadBucket: ErrBucketNotFound, ErrDenied.
	HeadBucket(ctx context.Context, bucket string) error
	ListBuckets(ctx context.Context) ([]BucketInfo, error)

	// Put stores an object whole or not at all; once it returns nil the object
	// is durable and visible to every reader.
	Put(ctx context.Context, id ObjectID, body Body, opts *PutOptions) (Written, error)
	// Get opens an object for reading. The attributes come in the same request.
	Get(ctx context.Context, id ObjectID, opts *GetOptions) (*Object, error)
	Head(ctx context.Context, id ObjectID, opts *GetOptions) (Info, error)
	// Delete of what is not there succeeds, unless IfMatch was given.
	Delete(ctx context.Context, id ObjectID, opts *DeleteOptions) (Deleted, error)
	// List reads one page, in one request to the cloud.
	List(ctx context.Context, bucket string, opts *ListOptions) (*Page, error)

	// Check makes the smallest call that shows that the store serves.
	Check(ctx context.Context) error
	// Close lets go of connections. The store must not be used afterwards.
	Close() error
}

// UploadID names a multipart upload. ID is the store's own.
type UploadID struct {
	Bucket, Key, ID string
}

// Part is a part of an upload as the store holds it.
type Part struct {
	Number   int // 1 to 10000
	ETag     string
	Size     int64
	Modified time.Time
}

// Upload is a row of ListUploads.
type Upload struct {
	UploadID
	Started time.Time
}

// PartsPage is a page of ListParts. Next is the marker of the next page; 0 at the end.
type PartsPage struct {
	Parts []Part
	Next  int
}

// ListUploadsOptions select a page of ListUploads. Markers are exclusive: uploads
// of KeyMarker above IDMarker, and of keys above KeyMarker. With an empty IDMarker
// only keys above KeyMarker.
type ListUploadsOptions struct {
	Prefix, Delimiter   string
	KeyMarker, IDMarker string
	Limit               int // 1 to 1000; 0 means 1000
}

// UploadsPage is a page of ListUploads, sorted by key, then by time.
type UploadsPage struct {
	Uploads               []Upload
	Prefixes              []string
	Truncated             bool
	NextKey, NextIDMarker string
}

// Multiparter is a Store that puts objects together from parts. Parts may come in
// any order, again, and at once; the last one to finish counts.
type Multiparter interface {
	// CreateUpload fixes the attributes of the object to be.
	CreateUpload(ctx context.Context, bucket, key string, attrs Attributes) (UploadID, error)
	// PutPart: ErrUploadNotFound.
	PutPart(ctx context.Context, id UploadID, number int, body Body) (Part, error)
	// Complete makes the object from the parts in the order given, or fails with
	// ErrInvalidPart, ErrTooSmall, ErrPrecondition, ErrConflict, ErrUploadNotFound
	// and leaves the upload as it was.
	Complete(ctx context.Context, id UploadID, parts []Part, cond Conditions) (Written, error)
	// Abort of an unknown upload is ErrUploadNotFound.
	Abort(ctx context.Context, id UploadID) error
	// ListParts lists parts above the number after, at most limit (0 means 1000).
	ListParts(ctx context.Context, id UploadID, after, limit int) (*PartsPage, error)
	ListUploads(ctx context.Context, bucket string, opts *ListUploadsOptions) (*UploadsPage, error)
	// MaxPut is the largest body that Put takes, in bytes.
	MaxPut() int64
}

// As finds a capability of a store, also beneath decorators, which have an
// Unwrap() Store method.
func As[T any](s Store) (T, bool) {
	for s != nil {
		if t, ok := s.(T); ok {
			return t, true
		}
		u, ok := s.(interface{ Unwrap() Store })
		if !ok {
			break
		}
		s = u.Unwrap()
	}
	var zero T
	return zero, false
}
