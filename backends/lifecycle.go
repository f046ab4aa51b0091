package backends

import (
	"context"
	"time"
)

// LifecycleRule is one by which a store deletes what is old on its own (S3 user
// guide, "Lifecycle configuration elements"). Of what it applies to and of what it
// does, zero fields do not count; at least one of the latter is set. Days are whole
// ones, rounded up to the next midnight UTC as on S3.
type LifecycleRule struct {
	ID string // 1 to 255 bytes, unique in its bucket

	// It applies to objects whose keys begin with Prefix, that have all of Tags, and
	// whose stored size is AtLeast and less than Below, in bytes.
	Prefix         string
	Tags           Tags
	AtLeast, Below int64

	// What it does to the newest versions: after days, at a midnight UTC, or once a
	// delete marker is all that is left.
	ExpireDays    int
	ExpireDate    time.Time
	ExpireMarkers bool
	// What it does to others: after days, but for the newest NoncurrentKeep of them.
	NoncurrentDays, NoncurrentKeep int
	// AbortDays ends uploads that began so long ago. Neither Tags nor sizes go with it.
	AbortDays int
}

// Lifecycler carries out rules.
type Lifecycler interface {
	// SetLifecycle replaces all rules of a bucket, also such as were made elsewhere;
	// none removes them. ErrBucketNotFound; ErrUnsupported where the store refuses one.
	SetLifecycle(ctx context.Context, bucket string, rules []LifecycleRule) error
}
