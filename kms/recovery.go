package kms

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"
)

// RecoveryOptions say how lost records are rebuilt.
type RecoveryOptions struct {
	// Apply writes. Without it nothing is changed: the report says what would be.
	Apply bool
	// Provider holds the KEKs that the registry does not know; empty means the default.
	Provider string
	// RecoveryKEK opens the recovery copies that are under the recovery KEK of the
	// configuration, and not what is under the KEKs that mirrors name.
	RecoveryKEK bool
	Change      Change
}

// RecoveredBucket names a bucket whose mirrors are read. What is in the mirrors and not
// authenticated decides nothing that is given here.
type RecoveredBucket struct {
	Name      string
	Store     string // the backend's name in the gateway's configuration
	StoreName string // the bucket's name there
	Owner     string // principal
	// Space is needed where mirrors of several spaces lie in one bucket. Empty means
	// the one that there is.
	Space string
	// Empty ones are as the newest mirror says: hints that the backend could have forged.
	KEK     string
	Profile Profile
	ETag    ETagMode
}

// Recovery rebuilds the records of buckets and bucket keys from mirrors (FORMAT.md
// section 2). Each mirror is proved by unwrapping it, or its recovery copy. Keys that
// were had from copies are wrapped anew, under a KEK that the registry has. What the
// registry has is never overwritten. It is used by one caller at a time: NewBucket, then AddMirror for each of
// its mirrors, then the next bucket, and in the end Finish, once.
type Recovery struct {
	m       *Manager
	o       RecoveryOptions
	keks    map[string]stored[KEK]
	adopt   map[string][]uint32 // versions that the registry does not know, by KEK
	buckets []*recovering
	opened  hash.Hash // over the mirrors that were opened by their copies
	copies  int       // how many they are
}

// recovering is what is known of one bucket.
type recovering struct {
	RecoveredBucket
	good   []Mirror // opened
	report BucketReport
	// secrets of the keys, where a copy is to be made or was opened
	secrets map[KeyID]Secret
	copied  bool // they were had from recovery copies
}

// maxEpoch is far beyond any epoch that was ever made: a mirror's is not authenticated,
// and the next one must have a number too.
const maxEpoch = 1 << 40

// NewRecovery begins a recovery.
func (m *Manager) NewRecovery(o RecoveryOptions) (*Recovery, error) {
	if err := o.Change.validate(); err != nil {
		return nil, fmt.Errorf("kms: recovering: %w", err)
	}
	if o.Provider == "" {
		o.Provider = m.provider
	}
	if m.providers[o.Provider] == nil {
		return nil, fmt.Errorf("kms: recovering: %w: no provider %q", ErrInvalid, o.Provider)
	}
	if o.RecoveryKEK && m.recovery.KEK == "" {
		return nil, fmt.Errorf("kms: recovering: %w: no recovery KEK is configured", ErrInvalid)
	}
	return &Recovery{m: m, o: o, keks: map[string]stored[KEK]{}, adopt: map[string][]uint32{}, opened: sha256.New()}, nil
}

// NewBucket begins with the next bucket. ErrInvalid.
func (r *Recovery) NewBucket(b RecoveredBucket) error {
	if err := b.validate(); err != nil {
		return fmt.Errorf("kms: recovering bucket %q: %w", b.Name, err)
	}
	r.buckets = append(r.buckets, &recovering{RecoveredBucket: b, secrets: map[KeyID]Secret{}, report: BucketReport{
		Name: b.Name, Store: b.Store, StoreName: b.StoreName, Owner: b.Owner,
	}})
	return nil
}

func (b RecoveredBucket) validate() error {
	record := b.record(Mirror{Profile: Standard, ETag: ETagBackend, KEK: "any"}, time.Time{})
	err := record.validate()
	if b.Space != "" {
		err = errors.Join(err, checkSpace(b.Space))
	}
	return err
}

// record is the bucket's, where hint is its newest mirror.
func (b RecoveredBucket) record(hint Mirror, created time.Time) Bucket {
	record := Bucket{
		Name: b.Name, Space: hint.Space, Store: b.Store, StoreName: b.StoreName, KEK: b.KEK,
		Profile: b.Profile, ETag: b.ETag, Owner: b.Owner, State: BucketActive, Created: created,
	}
	if record.KEK == "" {
		record.KEK = hint.KEK
	}
	if record.Profile == "" {
		record.Profile = hint.Profile
	}
	if record.ETag == "" {
		record.ETag = hint.ETag
	}
	return record
}

// AddMirror proves one mirror of the last NewBucket. name is that of its object, after
// .chatelaine/keys/. What is wrong with the mirror goes into the report; an error is
// one that keeps all mirrors from being proved, such as ErrUnavailable.
func (r *Recovery) AddMirror(ctx context.Context, name string, data []byte) error {
	open := r.prove
	if r.o.RecoveryKEK {
		open = r.openCopy
	}
	return r.add(name, data, r.o.RecoveryKEK, func(mirror Mirror) (Secret, error) { return open(ctx, mirror) })
}

// AddOpened is AddMirror for one whose recovery copy the caller has opened with the
// offline key, and so has proved (Mirror.OpenRecovery).
func (r *Recovery) AddOpened(name string, data []byte, secret Secret) error {
	return r.add(name, data, true, func(Mirror) (Secret, error) { return secret, checkOpened(secret) })
}

// add takes a mirror that open proves; copied says by its recovery copy.
func (r *Recovery) add(name string, data []byte, copied bool, open func(Mirror) (Secret, error)) error {
	if len(r.buckets) == 0 {
		return fmt.Errorf("kms: recovering mirror %q: %w: no bucket was named", name, ErrInvalid)
	}
	b := r.buckets[len(r.buckets)-1]
	mirror, err := readMirror(name, data)
	var secret Secret
	if err == nil {
		secret, err = open(mirror)
	}
	var refused refusal
	switch {
	case err == nil:
		b.good = append(b.good, mirror)
		b.secrets[mirror.ID] = secret
		if copied {
			b.copied = true
			r.note(name, data)
		}
	case errors.As(err, &refused):
		b.report.Refused = append(b.report.Refused, MirrorProblem{Mirror: name, Problem: refused.Error()})
	default:
		return fmt.Errorf("kms: proving mirror %q of bucket %q: %w", name, b.Name, err)
	}
	return nil
}

// refusal is what is wrong with one mirror.
type refusal struct{ error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// note adds a mirror to those that were opened by their copies.
func (r *Recovery) note(name string, data []byte) {
	r.copies++
	for _, part := range [][]byte{[]byte(name), data} {
		_, _ = r.opened.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // never fails
		_, _ = r.opened.Write(part)                                                  // never fails
	}
}

// readMirror parses a mirror, or returns a refusal.
func readMirror(name string, data []byte) (Mirror, error) {
	mirror, err := ParseMirror(data)
	switch {
	case err != nil:
		return Mirror{}, refuse("it is no mirror record, or a damaged one: %w", err)
	case name != mirror.ID.String():
		return Mirror{}, refuse("it holds key %s: it was swapped or renamed", mirror.ID)
	case mirror.Epoch > maxEpoch:
		return Mirror{}, refuse("epoch %d is none that was ever made", mirror.Epoch)
	}
	return mirror, nil
}

// prove opens a mirror with the key that it names, or returns a refusal.
func (r *Recovery) prove(ctx context.Context, mirror Mirror) (Secret, error) {
	key := mirror.key()
	p, err := r.providerFor(ctx, key.ref())
	if err != nil {
		return Secret{}, err
	}
	secret, err := p.Unwrap(ctx, key.ref(), key.binding(), key.Wrapped)
	if err != nil {
		return Secret{}, refusalOf(key.ref(), err)
	}
	return NewSecret(secret), checkOpened(NewSecret(secret))
}

// openCopy opens a mirror's recovery copy with the recovery KEK, or returns a refusal.
func (r *Recovery) openCopy(ctx context.Context, mirror Mirror) (Secret, error) {
	c := mirror.Recovery
	switch {
	case c == nil:
		return Secret{}, refuse("it has no recovery copy: only the KEK that it names opens it")
	case c.KEK == "":
		return Secret{}, refuse("its recovery copy is under RSA key %s, not under a KEK", c.RSA)
	case c.KEK != r.m.recovery.KEK:
		return Secret{}, refuse("its recovery copy is under %s, and the recovery KEK is %q", c.ref(), r.m.recovery.KEK)
	}
	s, err := r.kek(ctx, c.KEK)
	if err != nil {
		return Secret{}, err
	}
	if err := s.record.mayUnwrap(c.KEKVersion); err != nil {
		return Secret{}, refuse("its recovery copy cannot be opened: %w", err)
	}
	p, err := r.m.providerOf(&s.record, c.KEKVersion)
	if err != nil {
		return Secret{}, err
	}
	secret, err := p.Unwrap(ctx, c.ref(), mirror.key().recoveryBinding(), c.Wrapped)
	if err != nil {
		return Secret{}, refusalOf(c.ref(), err)
	}
	return NewSecret(secret), checkOpened(NewSecret(secret))
}

// checkOpened refuses what cannot be a bucket key.
func checkOpened(secret Secret) error {
	if n := secret.Len(); n != 32 {
		return refuse("it holds %d bytes, and a bucket key has 32", n)
	}
	return nil
}

// refusalOf makes a refusal of an error of an unwrapping that is about the mirror.
func refusalOf(ref KeyRef, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return refuse("the token has no key %s: that is destroyed, or this is another token, or the mirror an old copy", ref)
	case errors.Is(err, ErrCorrupt):
		return refuse("%s does not open it: it was tampered with, or this is another token", ref)
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrUnsafe), errors.Is(err, ErrAmbiguous):
		return refuse("%s cannot open it: %w", ref, err)
	}
	return err
}

// key is the record of the registry that a mirror shows. It has no recovery copy: that
// of the mirror need not be one that the KMS made.
func (m Mirror) key() BucketKey {
	return BucketKey{
		ID: m.ID, Space: m.Space, Epoch: m.Epoch, KEK: m.KEK, KEKVersion: m.KEKVersion,
		Created: m.Created, Wrapped: m.Wrapped, Mirrored: true,
	}
}

// providerFor finds who holds a KEK version, where the registry does not forbid its use.
// Of one that the registry does not know it takes note.
func (r *Recovery) providerFor(ctx context.Context, ref KeyRef) (Provider, error) {
	s, err := r.kek(ctx, ref.Name)
	if err != nil {
		return nil, err
	}
	if !s.exists() || s.record.Version(ref.Version) == nil {
		if !slices.Contains(r.adopt[ref.Name], ref.Version) {
			r.adopt[ref.Name] = append(r.adopt[ref.Name], ref.Version)
		}
		if !s.exists() {
			return r.m.providers[r.o.Provider], nil
		}
	} else if err := s.record.mayUnwrap(ref.Version); err != nil {
		return nil, refusal{err}
	}
	if s.record.Blocked {
		return nil, refuse("KEK %q is blocked", ref.Name)
	}
	return r.m.providerOf(&s.record, ref.Version)
}

// kek reads a KEK once. One that there is none of is the zero record.
func (r *Recovery) kek(ctx context.Context, name string) (stored[KEK], error) {
	if s, ok := r.keks[name]; ok {
		return s, nil
	}
	s, err := readMaybe[KEK](ctx, r.m.registry, kekPath(name))
	if err != nil {
		return s, err
	}
	if s.exists() {
		if err := r.m.gate.Usable(ctx, name); err != nil {
			return s, fmt.Errorf("using KEK %q: %w", name, err)
		}
	}
	r.keks[name] = s
	return s, nil
}
