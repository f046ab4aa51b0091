package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
)

// What a bucket's versions are is in its labels: the service's own versioning is on or
// off, and must stay on once it was. Two are times, in microseconds since 1970 by the
// service's clock: preparedLabel is when it was switched on, and sinceLabel from when on
// what becomes noncurrent may be a version.
const (
	stateLabel    = "chatelaine-versioning"
	preparedLabel = "chatelaine-versions-prepared"
	sinceLabel    = "chatelaine-versions-since"

	labelPreparing = "preparing"
	labelEnabled   = "enabled"
	labelSuspended = "suspended"
)

const (
	// lease is how long a gateway writes by what it knows of a bucket. Who changes it
	// waits that long, so that nobody goes by what was there before.
	lease = 3 * time.Second
	// settling is how long the service takes to keep what is replaced ("Use Object
	// Versioning").
	settling = 30 * time.Second
	// glance is how long it may take until a read calls the version null that had no
	// name before.
	glance = time.Minute
	// emulatorLease is the lease of an emulator, which also settles at once.
	emulatorLease = 50 * time.Millisecond
)

var (
	errSwitchedOff = errors.New("versioning of the bucket was switched off at the service, which would destroy what is replaced: enable it again")
	errLabel       = errors.New("the bucket has a label " + stateLabel + " of another kind")
	errMayNotSee   = errors.New("the account needs storage.buckets.get for it (roles/storage.legacyBucketReader)")
	errMayNotSet   = errors.New("the account needs storage.buckets.get and storage.buckets.update for it (roles/storage.admin)")
)

// state is what a bucket's versions are. Preparing is VersioningOff, but the service
// keeps already what is replaced.
type state struct {
	versioning      backends.Versioning
	preparing       bool
	prepared, since time.Time
	denied          error // whether there are versions cannot be seen; then there are none
	broken          error // nothing may be written
}

func (st state) on() bool { return st.versioning != backends.VersioningOff }

func stateOf(attrs *storage.BucketAttrs) (st state) {
	switch attrs.Labels[stateLabel] {
	case "":
	case labelPreparing:
		st.preparing = true
	case labelEnabled:
		st.versioning = backends.VersioningEnabled
	case labelSuspended:
		st.versioning = backends.VersioningSuspended
	default:
		st.broken = fmt.Errorf("%w: %w", backends.ErrBucketState, errLabel)
	}
	st.prepared, st.since = parseTime(attrs.Labels[preparedLabel]), parseTime(attrs.Labels[sinceLabel])
	if st.on() && !attrs.VersioningEnabled {
		st.broken = fmt.Errorf("%w: %w", backends.ErrBucketState, errSwitchedOff)
	}
	return st
}

func formatTime(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }

// parseTime is zero for what is none: then everything that is there is a version.
func parseTime(label string) time.Time {
	micros, err := strconv.ParseInt(label, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(micros)
}

// leases are the states that are known. They are few: one of each bucket.
type leases struct {
	mu sync.Mutex
	of map[string]leased
}

type leased struct {
	state
	at time.Time // when it was asked for
}

func (l *leases) get(bucket string, age time.Duration) (state, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.of[bucket]
	return known.state, ok && time.Since(known.at) < age
}

func (l *leases) put(bucket string, st state, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string]leased{}
	}
	if at.After(l.of[bucket].at) {
		l.of[bucket] = leased{st, at}
	}
}

func (l *leases) drop(bucket string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, bucket)
}

// state is what is known of a bucket and no older than age. A bucket that is missing has
// no versions: the call that follows tells.
func (s *Store) state(ctx context.Context, bucket string, age time.Duration) (state, error) {
	if st, ok := s.leases.get(bucket, age); ok {
		return st, nil
	}
	asked := time.Now()
	attrs, err := s.client.Bucket(bucket).Attrs(ctx)
	var st state
	switch statusOf(err) {
	case http.StatusNotFound:
		return state{}, nil
	case http.StatusForbidden:
		st.denied = fmt.Errorf("%w: %w: %w", backends.ErrUnsupported, errMayNotSee, answerOf(err))
	default:
		if err != nil {
			return state{}, err
		}
		st = stateOf(attrs)
	}
	s.leases.put(bucket, st, asked)
	return st, nil
}

// writable is the state for who writes.
func (s *Store) writable(ctx context.Context, bucket string) (state, error) {
	st, err := s.state(ctx, bucket, s.lease)
	return st, firstError(err, st.broken)
}

// Versioning implements backends.Versioner. It takes storage.buckets.get; without that
// right it is ErrUnsupported.
func (s *Store) Versioning(ctx context.Context, bucket string) (backends.Versioning, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("reading the versioning of bucket %q", bucket)
	attrs, err := s.settings(ctx, bucket, errMayNotSee)
	if errors.Is(err, backends.ErrDenied) {
		err = fmt.Errorf("%w: %w", backends.ErrUnsupported, errors.Unwrap(err))
	}
	if err != nil {
		return "", wrap(ctx, doing, err)
	}
	return stateOf(attrs).versioning, nil
}

// settings are a bucket's own attributes.
func (s *Store) settings(ctx context.Context, bucket string, without error) (*storage.BucketAttrs, error) {
	if err := backends.CheckBucket(bucket); err != nil {
		return nil, err
	}
	attrs, err := s.client.Bucket(bucket).Attrs(ctx)
	return attrs, ofBucket(err, bucket, without)
}

func ofBucket(err error, bucket string, without error) error {
	switch statusOf(err) {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %q", backends.ErrBucketNotFound, bucket)
	case http.StatusForbidden:
		return fmt.Errorf("%w: %w: %w", backends.ErrDenied, without, answerOf(err))
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w: others change the bucket: %w", backends.ErrConflict, answerOf(err))
	}
	return err
}

// SetVersioning implements backends.Versioner. The first time it takes half a minute,
// until all of the service and all gateways know; later 3 s. Where it is cut short it
// may be said again. It takes storage.buckets.get and storage.buckets.update.
func (s *Store) SetVersioning(ctx context.Context, bucket string, v backends.Versioning) error {
	ctx, doing := withBudget(ctx), fmt.Sprintf("setting the versioning of bucket %q", bucket)
	if err := (backends.LockConfig{}).CheckVersioning(v); err != nil {
		return wrap(ctx, doing, err)
	}
	attrs, err := s.settings(ctx, bucket, errMayNotSet)
	if err != nil {
		return wrap(ctx, doing, err)
	}
	st := stateOf(attrs)
	if st.versioning == v && st.broken == nil {
		return nil
	}
	if !st.on() || st.broken != nil {
		attrs, err = s.prepare(ctx, bucket, attrs)
	}
	if err == nil {
		err = s.setState(ctx, bucket, attrs, v)
	}
	return wrap(ctx, doing, err)
}

// prepare has the service keep what is replaced. From then on gateways delete objects
// for good, by their generations: what they deleted before they knew of it became
// noncurrent before the time of sinceLabel.
func (s *Store) prepare(ctx context.Context, bucket string, attrs *storage.BucketAttrs) (*storage.BucketAttrs, error) {
	change := storage.BucketAttrsToUpdate{VersioningEnabled: true}
	st := stateOf(attrs)
	first := !st.on()
	if first {
		change.SetLabel(stateLabel, labelPreparing)
	}
	if st.preparing && st.prepared.IsZero() { // and it ended there
		change.SetLabel(preparedLabel, formatTime(attrs.Updated))
	}
	attrs, err := s.configure(ctx, bucket, attrs, change)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, max(s.settling, s.lease)); err != nil || !first {
		return attrs, err
	}
	attrs.Labels[sinceLabel] = formatTime(attrs.Updated.Add(s.lease))
	if stateOf(attrs).prepared.IsZero() {
		attrs.Labels[preparedLabel] = formatTime(attrs.Updated)
	}
	return attrs, nil
}

func (s *Store) setState(ctx context.Context, bucket string, attrs *storage.BucketAttrs, v backends.Versioning) error {
	change := storage.BucketAttrsToUpdate{}
	change.SetLabel(stateLabel, map[backends.Versioning]string{
		backends.VersioningEnabled: labelEnabled, backends.VersioningSuspended: labelSuspended,
	}[v])
	change.SetLabel(preparedLabel, attrs.Labels[preparedLabel])
	change.SetLabel(sinceLabel, attrs.Labels[sinceLabel])
	if _, err := s.configure(ctx, bucket, attrs, change); err != nil {
		return err
	}
	return wait(ctx, s.lease)
}

// configure changes a bucket that is as attrs say. It goes out once: a second attempt
// could not tell its own change from somebody else's.
func (s *Store) configure(ctx context.Context, bucket string, attrs *storage.BucketAttrs, change storage.BucketAttrsToUpdate) (*storage.BucketAttrs, error) {
	asked := time.Now()
	attrs, err := s.client.Bucket(bucket).If(storage.BucketConditions{MetagenerationMatch: attrs.MetaGeneration}).Retryer(once()).Update(ctx, change)
	if err != nil {
		s.leases.drop(bucket)
		return nil, ofBucket(err, bucket, errMayNotSet)
	}
	s.leases.put(bucket, stateOf(attrs), asked)
	return attrs, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
