package backendtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"chatelaine/backends"
)

// Op names a method of backends.Store or of a capability.
type Op string

// The operations that can fail. Close, MaxPut and MaxCopy cannot.
const (
	CreateBucket Op = "CreateBucket"
	DeleteBucket Op = "DeleteBucket"
	HeadBucket   Op = "HeadBucket"
	ListBuckets  Op = "ListBuckets"
	Put          Op = "Put"
	Get          Op = "Get"
	Head         Op = "Head"
	Delete       Op = "Delete"
	List         Op = "List"
	Check        Op = "Check"
	CreateUpload Op = "CreateUpload"
	PutPart      Op = "PutPart"
	Complete     Op = "Complete"
	Abort        Op = "Abort"
	ListParts    Op = "ListParts"
	ListUploads  Op = "ListUploads"

	Copy               Op = "Copy"
	CopyPart           Op = "CopyPart"
	Versioning         Op = "Versioning"
	SetVersioning      Op = "SetVersioning"
	ListVersions       Op = "ListVersions"
	Tags               Op = "Tags"
	SetTags            Op = "SetTags"
	CreateLockedBucket Op = "CreateLockedBucket"
	LockConfig         Op = "LockConfig"
	SetLockConfig      Op = "SetLockConfig"
	Lock               Op = "Lock"
	SetRetention       Op = "SetRetention"
	SetHold            Op = "SetHold"
)

// Outcome is what becomes of an operation that fails.
type Outcome int

const (
	// NotApplied: the store never hears of it. A body is not read.
	NotApplied Outcome = iota
	// Applied: the store does it, and its answer is lost. Where the store itself
	// fails, its own error comes.
	Applied
	// Cut: the body of a Put or PutPart is read for Bytes bytes, and then the call
	// fails and nothing is stored; the body of a Get fails after Bytes bytes.
	Cut
	// Stalled: nothing happens until the context is done, whose error comes. The body
	// of a Get is not affected.
	Stalled
)

// Fault makes operations fail. The zero values of Key, Skip and Times mean any key,
// the first call, and once.
type Fault struct {
	Op      Op
	Outcome Outcome
	Key     string // only operations on this object key; of copies, the destination's
	Skip    int    // matching calls that go through before
	Times   int    // matching calls that fail; below 0, all
	Bytes   int64  // for Cut
	Err     error  // what is returned; nil means ErrInjected under backends.ErrUnavailable
}

// ErrInjected is in the error of a fault that has none of its own.
var ErrInjected = errors.New("injected fault")

func (f *Fault) err() error {
	if f.Err != nil {
		return f.Err
	}
	return fmt.Errorf("%w: %w: %s", backends.ErrUnavailable, ErrInjected, f.Op)
}

// Faults steer a store that NewFaulty made. All methods may be called at any time.
type Faults struct {
	mu    sync.Mutex
	armed []*Fault
	calls map[Op]int
}

// NewFaulty returns a store that does what inner does but for the faults that are
// armed. It has the capabilities that inner has, with faults too: backends.As finds
// them. Closing it closes inner.
func NewFaulty(inner backends.Store) (backends.Store, *Faults) {
	faults := &Faults{calls: map[Op]int{}}
	return &faultyStore{inner, faults, capabilities(inner, faults)}, faults
}

// Arm adds a fault. Those that were armed first come first.
func (f *Faults) Arm(fault Fault) {
	if fault.Times == 0 {
		fault.Times = 1
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = append(f.armed, &fault)
}

// Disarm removes all faults; the counts stay.
func (f *Faults) Disarm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = nil
}

// Armed is the number of faults that have not happened as often as they should.
func (f *Faults) Armed() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.armed {
		if a.Times > 0 {
			n++
		}
	}
	return n
}

// Calls is the number of calls of an operation since the last Reset, failed or not.
func (f *Faults) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Reset disarms all faults and forgets the counts.
func (f *Faults) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.calls = nil, map[Op]int{}
}

// next counts a call and returns a copy of the fault that it meets, or nil.
func (f *Faults) next(op Op, key string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	for _, a := range f.armed {
		switch {
		case a.Op != op, a.Key != "" && a.Key != key, a.Times == 0:
			continue
		case a.Skip > 0:
			a.Skip--
			continue
		case a.Times > 0:
			a.Times--
		}
		hit := *a
		return &hit
	}
	return nil
}

// run is every operation: do, or a fault in its place or behind it. Body is what
// the operation reads, or nil.
func run[T any](ctx context.Context, f *Faults, op Op, key string, body io.Reader, do func() (T, error)) (T, error) {
	var zero T
	fault := f.next(op, key)
	if fault == nil {
		return do()
	}
	switch fault.Outcome {
	case Stalled:
		<-ctx.Done()
		return zero, ctx.Err()
	case Applied:
		if _, err := do(); err != nil {
			return zero, err
		}
	case Cut:
		if op == Get {
			return cutGet(fault, do)
		}
		if body != nil {
			if _, err := io.CopyN(io.Discard, body, fault.Bytes); err != nil && !errors.Is(err, io.EOF) {
				return zero, err
			}
		}
	}
	return zero, fault.err()
}

func cutGet[T any](fault *Fault, do func() (T, error)) (T, error) {
	answer, err := do()
	if o, ok := any(answer).(*backends.Object); ok && err == nil {
		o.Body = &cutBody{o.Body, fault.Bytes, fault.err()}
	}
	return answer, err
}

// cutBody fails after left bytes, also where that is the end.
type cutBody struct {
	io.ReadCloser
	left int64
	err  error
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// none adapts operations that return an error alone.
func none(do func() error) func() (struct{}, error) {
	return func() (struct{}, error) { return struct{}{}, do() }
}

type faultyStore struct {
	inner  backends.Store
	faults *Faults
	next   backends.Store // the first of the capabilities
}

func (s *faultyStore) Unwrap() backends.Store { return s.next }
func (s *faultyStore) Close() error           { return s.inner.Close() }

func (s *faultyStore) CreateBucket(ctx context.Context, bucket string) error {
	_, err := run(ctx, s.faults, CreateBucket, "", nil, none(func() error { return s.inner.CreateBucket(ctx, bucket) }))
	return err
}

func (s *faultyStore) DeleteBucket(ctx context.Context, bucket string) error {
	_, err := run(ctx, s.faults, DeleteBucket, "", nil, none(func() error { return s.inner.DeleteBucket(ctx, bucket) }))
	return err
}

func (s *faultyStore) HeadBucket(ctx context.Context, bucket string) error {
	_, err := run(ctx, s.faults, HeadBucket, "", nil, none(func() error { return s.inner.HeadBucket(ctx, bucket) }))
	return err
}

func (s *faultyStore) ListBuckets(ctx context.Context) ([]backends.BucketInfo, error) {
	return run(ctx, s.faults, ListBuckets, "", nil, func() ([]backends.BucketInfo, error) { return s.inner.ListBuckets(ctx) })
}

func (s *faultyStore) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	return run(ctx, s.faults, Put, id.Key, body.Reader, func() (backends.Written, error) { return s.inner.Put(ctx, id, body, opts) })
}

func (s *faultyStore) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	return run(ctx, s.faults, Get, id.Key, nil, func() (*backends.Object, error) { return s.inner.Get(ctx, id, opts) })
}

func (s *faultyStore) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	return run(ctx, s.faults, Head, id.Key, nil, func() (backends.Info, error) { return s.inner.Head(ctx, id, opts) })
}

func (s *faultyStore) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	return run(ctx, s.faults, Delete, id.Key, nil, func() (backends.Deleted, error) { return s.inner.Delete(ctx, id, opts) })
}

func (s *faultyStore) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	return run(ctx, s.faults, List, "", nil, func() (*backends.Page, error) { return s.inner.List(ctx, bucket, opts) })
}

func (s *faultyStore) Check(ctx context.Context) error {
	_, err := run(ctx, s.faults, Check, "", nil, none(func() error { return s.inner.Check(ctx) }))
	return err
}
