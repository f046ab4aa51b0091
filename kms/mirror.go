package kms

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// MaxMirror is the longest mirror record, in bytes.
const MaxMirror = 8 << 10

// Mirror is a bucket key's record as it lies, wrapped, in the backend under
// .chatelaine/keys/ (FORMAT.md section 2): with it and the HSM alone, the bucket
// can be opened again.
//
// It is kept by a party that is not trusted. Space and ID are authenticated by
// the unwrapping (Binding). Bucket, Profile and ETag are hints for a person who
// recovers. It does not name the owner: a provider must not decide that.
type Mirror struct {
	ID         KeyID     `json:"id"`
	Space      string    `json:"space"`
	Epoch      uint64    `json:"epoch"`
	KEK        string    `json:"kek"`
	KEKVersion uint32    `json:"kek_version"`
	Created    time.Time `json:"created"`
	Wrapped    []byte    `json:"wrapped"`
	Bucket     string    `json:"bucket"`
	Profile    Profile   `json:"profile"`
	ETag       ETagMode  `json:"etag"`
	// Recovery is the key wrapped a second time, where that was configured.
	Recovery *RecoveryCopy `json:"recovery,omitempty"`
}

func newMirror(b Bucket, k BucketKey) Mirror {
	return Mirror{
		ID: k.ID, Space: k.Space, Epoch: k.Epoch, KEK: k.KEK, KEKVersion: k.KEKVersion,
		Created: k.Created, Wrapped: k.Wrapped, Bucket: b.Name, Profile: b.Profile, ETag: b.ETag,
		Recovery: k.Recovery,
	}
}

// mirrorForm is the file's form: the record with its kind and version first.
type mirrorForm struct {
	Chatelaine string `json:"chatelaine"`
	Mirror
}

// The kinds of mirrors. One with a recovery copy has a kind of its own, so that readers
// that do not know such copies say so, and those without one stay as they were.
const (
	mirrorKind         = "bucket-key/1"
	mirrorKindRecovery = "bucket-key/2"
)

// kind is the record's own.
func (m Mirror) kind() string {
	if m.Recovery != nil {
		return mirrorKindRecovery
	}
	return mirrorKind
}

func (m Mirror) marshal() ([]byte, error) {
	out, err := json.Marshal(mirrorForm{Chatelaine: m.kind(), Mirror: m})
	if err != nil {
		return nil, fmt.Errorf("encoding the mirror record: %w", err)
	}
	if len(out) > MaxMirror {
		return nil, fmt.Errorf("%w: mirror record of %d bytes", ErrInvalid, len(out))
	}
	return out, nil
}

// ParseMirror reads a mirror record strictly. What it says is not yet true: only
// the unwrapping shows that.
func ParseMirror(data []byte) (Mirror, error) {
	m, err := parseMirror(data)
	if err != nil {
		return Mirror{}, fmt.Errorf("kms: parsing a mirror record: %w", err)
	}
	return m, nil
}

func parseMirror(data []byte) (Mirror, error) {
	if len(data) > MaxMirror {
		return Mirror{}, fmt.Errorf("%w: %d bytes are over %d", ErrInvalid, len(data), MaxMirror)
	}
	var form mirrorForm
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&form); err != nil {
		return Mirror{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Mirror{}, fmt.Errorf("%w: something follows the record", ErrInvalid)
	}
	return form.Mirror, form.validate()
}

// Open unwraps the bucket key with the provider that holds its KEK. Where that works,
// Space, ID, KEK and KEKVersion are true; the rest are still hints. It asks no registry:
// who may use a KEK, and whether it is blocked, is not known here. Errors are those of
// Provider.Unwrap.
func (m Mirror) Open(ctx context.Context, p Provider) (Secret, error) {
	key := m.key()
	return m.unwrap(ctx, p, key.ref(), key.binding(), key.Wrapped)
}

// OpenCopy is Open with the recovery copy under a KEK, where there is one: Epoch is true
// as well then, and KEK and KEKVersion are hints. ErrNotFound where there is none.
func (m Mirror) OpenCopy(ctx context.Context, p Provider) (Secret, error) {
	if m.Recovery == nil || m.Recovery.KEK == "" {
		return Secret{}, fmt.Errorf("kms: opening the recovery copy of key %s: it has none under a KEK: %w", m.ID, ErrNotFound)
	}
	return m.unwrap(ctx, p, m.Recovery.ref(), m.key().recoveryBinding(), m.Recovery.Wrapped)
}

func (m Mirror) unwrap(ctx context.Context, p Provider, ref KeyRef, binding Binding, wrapped []byte) (Secret, error) {
	b, err := p.Unwrap(ctx, ref, binding, wrapped)
	if err != nil {
		return Secret{}, fmt.Errorf("kms: opening the mirror of key %s: %w", m.ID, err)
	}
	secret := NewSecret(b)
	if secret.Len() != 32 {
		return Secret{}, fmt.Errorf("kms: opening the mirror of key %s: %w: it holds %d bytes", m.ID, ErrCorrupt, secret.Len())
	}
	return secret, nil
}

func (f mirrorForm) validate() error {
	if f.Chatelaine != f.kind() {
		return fmt.Errorf("%w: kind %q, want %q", ErrInvalid, f.Chatelaine, f.kind())
	}
	if err := f.Recovery.validate(); err != nil {
		return err
	}
	if err := checkSpace(f.Space); err != nil {
		return err
	}
	if err := checkName("KEK", f.KEK); err != nil {
		return err
	}
	if f.KEKVersion == 0 || f.Epoch == 0 || f.ID == (KeyID{}) || len(f.Wrapped) == 0 {
		return fmt.Errorf("%w: an id, epoch, KEK version or wrapped key is missing", ErrInvalid)
	}
	return nil
}
