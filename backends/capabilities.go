package backends

import (
	"context"
	"time"
)

// What a store may be able to do beyond Store and Multiparter. A capability is
// found with As, also beneath decorators; a store that lacks one is answered for
// with NotImplemented, from there alone. backendtest checks each where it is found.

// CopyOptions are the extras of Copy.
type CopyOptions struct {
	// Attributes replace those of the source, tags and lock too.
	Attributes Attributes
	// SourceIfMatch pins the source to an ETag; empty means whatever is there.
	SourceIfMatch string
	// Conditions guard the destination as in PutOptions.
	Conditions Conditions
}

// Copier copies stored bytes within the store, without moving them through the
// gateway. A changed source is ErrPrecondition.
type Copier interface {
	// Copy copies an object of at most MaxCopy bytes; more is ErrTooLarge.
	Copy(ctx context.Context, src, dst ObjectID, opts *CopyOptions) (Written, error)
	// CopyPart makes a range of an object a part of an upload. A nil r means all.
	// A range must lie within the source; one that does not is a *RangeError.
	CopyPart(ctx context.Context, id UploadID, number int, src ObjectID, r *Range, sourceIfMatch string) (Part, error)
	// MaxCopy is the largest object that Copy, and the largest range that CopyPart
	// takes, in bytes.
	MaxCopy() int64
}

// Headers are what S3 keeps beside an object that came by another way than through
// the gateway, which seals them and never gives them to a store. Empty means none.
type Headers struct {
	ContentEncoding, ContentDisposition, ContentLanguage string
	CacheControl, Expires, Redirect                      string
}

// Foreigner is a store whose buckets show what others have put there, under the keys
// and with the attributes that those gave it: Get and Head tell Info.Headers too. A
// store that encodes keys, or keeps objects in files of its own, is none.
type Foreigner interface {
	// Foreign says whether a bucket is such a one: ErrBucketNotFound, ErrUnsupported.
	Foreign(ctx context.Context, bucket string) error
}

// Versioning is the state of a bucket's versions.
type Versioning string

// The states of S3: a bucket that never had versions is VersioningOff, and never
// becomes so again.
const (
	VersioningOff       Versioning = ""
	VersioningEnabled   Versioning = "Enabled"
	VersioningSuspended Versioning = "Suspended"
)

// NullVersion is the version of an object that was written while versions were
// off or suspended.
const NullVersion = "null"

// VersionInfo is a row of ListVersions: a version, or a delete marker, which has
// no Size and no ETag.
type VersionInfo struct {
	Info
	Latest bool
	Marker bool
}

// ListVersionsOptions select a page of ListVersions. Markers are exclusive:
// versions of KeyMarker older than VersionMarker, and all of keys above
// KeyMarker. With an empty VersionMarker only keys above KeyMarker.
type ListVersionsOptions struct {
	Prefix, Delimiter        string
	KeyMarker, VersionMarker string
	Limit                    int // 1 to 1000; 0 means 1000
}

// VersionsPage is a page of ListVersions: by key, the newest version first.
type VersionsPage struct {
	Versions                 []VersionInfo
	Prefixes                 []string
	Truncated                bool
	NextKey, NextVersionMark string
}

// Versioner keeps older versions of objects. With it, ObjectID.Version works on
// Get, Head and Delete; Put, Copy and Complete return the version they made;
// Delete without a version leaves a delete marker. A Get or Head of a delete
// marker by its version is ErrDeleteMarker, and one whose newest version is a
// marker is ErrNotFound; both come in a *MarkerError. An unknown version is
// ErrVersionNotFound, but its Delete succeeds.
type Versioner interface {
	Versioning(ctx context.Context, bucket string) (Versioning, error)
	// SetVersioning: ErrBucketState for VersioningOff, and for all but
	// VersioningEnabled where the bucket has a lock.
	SetVersioning(ctx context.Context, bucket string, v Versioning) error
	ListVersions(ctx context.Context, bucket string, opts *ListVersionsOptions) (*VersionsPage, error)
}

// Tags are an object's tags. They are readable at the provider. nil means none.
type Tags map[string]string

// Tagger keeps tags on objects. Put, Copy and CreateUpload then take them too.
// Each returns the version that it read or changed.
type Tagger interface {
	Tags(ctx context.Context, id ObjectID) (Tags, string, error)
	// SetTags replaces all tags; none removes them.
	SetTags(ctx context.Context, id ObjectID, tags Tags) (string, error)
}

// LockMode is how hard a retention is.
type LockMode string

// The modes of S3 Object Lock.
const (
	Governance LockMode = "GOVERNANCE"
	Compliance LockMode = "COMPLIANCE"
)

// Lock is what keeps a version from being deleted. Zero means nothing does.
type Lock struct {
	Mode  LockMode
	Until time.Time // of Mode; to the second or better
	Hold  bool      // legal hold
	// Lifted says that there was a hold and is none any more. Stores tell; a write that
	// says so changes nothing.
	Lifted bool
}

// LockConfig is a bucket's Object Lock. Of Days and Years at most one is set;
// with neither there is no default retention.
type LockConfig struct {
	Enabled     bool
	Mode        LockMode
	Days, Years int
}

// Locker keeps versions from being deleted before their time. A bucket with a
// lock has versions and cannot lose either again. Deleting or overwriting a
// locked version is ErrLocked. In a bucket without a lock, Attributes.Lock, Lock,
// SetRetention and SetHold are ErrNoLock.
type Locker interface {
	// CreateLockedBucket makes a bucket with Object Lock enabled.
	CreateLockedBucket(ctx context.Context, bucket string) error
	// LockConfig is zero where there is no lock.
	LockConfig(ctx context.Context, bucket string) (LockConfig, error)
	// SetLockConfig also enables the lock on a bucket with versions; ErrBucketState
	// where they are not enabled, and for a c that is not. The default retention is
	// that of versions made from then on without a retention of their own.
	SetLockConfig(ctx context.Context, bucket string, c LockConfig) error
	// Lock reads a version's lock; SetRetention and SetHold change their half of it.
	// Shortening or removing a retention before its time, and another mode, is
	// ErrLocked, but for Governance with bypass. An empty mode removes it.
	Lock(ctx context.Context, id ObjectID) (Lock, error)
	SetRetention(ctx context.Context, id ObjectID, mode LockMode, until time.Time, bypass bool) error
	SetHold(ctx context.Context, id ObjectID, hold bool) error
}
