package kms

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// schema is the version of the records' JSON. A record of a newer schema is
// refused: an old KMS must not write back what it half understands.
//
// A bucket key with a recovery copy has schemaRecovery, and a bucket with the rollback
// guard schemaLedger; all else has the first, so that without them nothing is written
// that an older KMS does not know.
const (
	schema         = 1
	schemaRecovery = 2
	schemaLedger   = 2
)

// schemaOf is the oldest schema that has all of a record.
func schemaOf(record any) int {
	if k, ok := record.(BucketKey); ok && k.Recovery != nil {
		return schemaRecovery
	}
	if b, ok := record.(Bucket); ok && b.Ledger != nil {
		return schemaLedger
	}
	return schema
}

// newestSchema is the newest schema of records of a kind that this program knows.
func newestSchema(key string) int {
	switch {
	case strings.HasPrefix(key, bucketKeysRoot):
		return schemaRecovery
	case strings.HasPrefix(key, bucketPath("")):
		return schemaLedger
	}
	return schema
}

// KeyID is the id of a bucket key: 16 random bytes, never used twice.
type KeyID [16]byte

// String is the id in hex.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes hex.
func (id KeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 32 hex digits.
func (id *KeyID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("%w: key id of %d characters, want %d", ErrInvalid, len(text), hex.EncodedLen(len(id)))
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("%w: key id: %w", ErrInvalid, err)
	}
	return nil
}

// BucketKey is the record of one epoch's key of a bucket, wrapped.
type BucketKey struct {
	ID         KeyID     `json:"id"`
	Space      string    `json:"space"`
	Epoch      uint64    `json:"epoch"` // from 1, by 1 a new key
	KEK        string    `json:"kek"`
	KEKVersion uint32    `json:"kek_version"`
	Created    time.Time `json:"created"`
	Wrapped    []byte    `json:"wrapped"`
	// Mirrored: a gateway said that the record is in the backend too.
	Mirrored bool `json:"mirrored"`
	// Stale are KEK versions under which a copy in the backend may still be wrapped that
	// is not the present one; also the present version where the recovery copy differs. Whoever wraps the key anew adds the old one here,
	// and it is empty again once the new record is mirrored: until then those
	// versions must not be destroyed.
	Stale []KeyRef `json:"stale,omitempty"`
	// Recovery is the key wrapped a second time, where that was configured.
	Recovery *RecoveryCopy `json:"recovery,omitempty"`
}

func (k BucketKey) ref() KeyRef { return KeyRef{Name: k.KEK, Version: k.KEKVersion} }

func (k BucketKey) binding() Binding {
	return Binding{Purpose: "bucket-key", Space: k.Space, ID: k.ID.String()}
}

// Profile says how long a bucket's keys may be kept outside the HSM.
type Profile string

// The profiles.
const (
	Standard Profile = "standard" // cached by gateways under a lease
	Strict   Profile = "strict"   // not cached: an HSM call for each request
)

// ETagMode says which ETags a bucket shows (FORMAT.md section 7).
type ETagMode string

// The modes.
const (
	ETagBackend ETagMode = "backend" // the backend's
	ETagMD5     ETagMode = "md5"     // MD5 of the plaintext
)

// BucketState says how far a bucket has come.
type BucketState string

// The states of a bucket.
const (
	BucketCreating BucketState = "creating" // registered; the store may not have it yet
	BucketActive   BucketState = "active"
	// BucketAdopting: it may hold plaintext that was there before (adoption.go).
	BucketAdopting BucketState = "adopting"
	// BucketShredded: its keys are destroyed. What is in it opens never again, and can
	// be listed and deleted.
	BucketShredded BucketState = "shredded"
)

// Bucket is a bucket's record.
type Bucket struct {
	Name      string      `json:"name"`
	Space     string      `json:"space"`      // UUID, never used twice
	Store     string      `json:"store"`      // the backend's name in the configuration
	StoreName string      `json:"store_name"` // the bucket's name there
	KEK       string      `json:"kek"`
	Profile   Profile     `json:"profile"`
	ETag      ETagMode    `json:"etag"`
	Owner     string      `json:"owner"` // principal
	State     BucketState `json:"state"`
	Created   time.Time   `json:"created"`
	// EpochPeriod is the age at which its key is replaced. 0: the Manager's.
	EpochPeriod time.Duration `json:"epoch_period,omitempty"`
	// EpochObjects is the number of objects after which its key is replaced, about. 0: 2^20.
	EpochObjects uint64        `json:"epoch_objects,omitempty"`
	History      []StateChange `json:"history,omitempty"`
	// Adopting is there from the registration for an adoption to its end.
	Adopting *Adopting `json:"adopting,omitempty"`
	// Ledger is there while the bucket has the rollback guard.
	Ledger *Ledger `json:"ledger,omitempty"`
}

// Adopting says which objects of a bucket may be plaintext.
type Adopting struct {
	// CutOff is the store's time after which nothing is: zero until a gateway has begun.
	CutOff time.Time `json:"cut_off,omitzero"`
	// SealedTo: all objects up to this key are sealed.
	SealedTo string `json:"sealed_to,omitempty"`
}

// KeyStatus says whether an access key may be used.
type KeyStatus string

// The statuses of an access key.
const (
	KeyEnabled  KeyStatus = "active"
	KeyDisabled KeyStatus = "disabled"
)

// AccessKey is an S3 credential's record, its secret wrapped.
type AccessKey struct {
	ID         string    `json:"id"`
	Principal  string    `json:"principal"`
	KEK        string    `json:"kek"`
	KEKVersion uint32    `json:"kek_version"`
	Wrapped    []byte    `json:"wrapped"`
	Status     KeyStatus `json:"status"`
	Created    time.Time `json:"created"`
	// Revealable: its secret may be shown again. Development only.
	Revealable bool `json:"revealable,omitempty"`
	// Old is the secret before this one, while both are live.
	Old     *OldSecret    `json:"old,omitempty"`
	History []StateChange `json:"history,omitempty"`
}

// OldSecret is a secret that was replaced and is good for some time still. It is
// wrapped under the same KEK version as the one that replaced it.
type OldSecret struct {
	Wrapped []byte `json:"wrapped"`
	// Ends is its end by the clock on the wall, and EndsClock by that of the keeper
	// (keeper.go). It ends at whichever comes first, so that no clock that is set
	// back lengthens its life.
	Ends      time.Time     `json:"ends"`
	EndsClock time.Duration `json:"ends_clock"`
}

func (k AccessKey) ref() KeyRef { return KeyRef{Name: k.KEK, Version: k.KEKVersion} }

func (k AccessKey) binding() Binding { return Binding{Purpose: "access-key", ID: k.ID} }

// current says which bucket key a space seals with. Its revision is what
// concurrent makers of a new epoch compete for.
type current struct {
	ID      KeyID     `json:"id"`
	Epoch   uint64    `json:"epoch"`
	Created time.Time `json:"created"`
	// Sealed is how many messages were sealed under it, as far as it was written down
	// (tally.go).
	Sealed uint64 `json:"sealed,omitempty"`
}

// claim is held by the bucket that took a space, or a bucket of a store.
type claim struct {
	Bucket string `json:"bucket"`
}

// revocation counts what gateways must learn of at once.
type revocation struct {
	Epoch uint64 `json:"epoch"`
	// Narrow counts the changes among them that Revocation.Unusable tells of.
	Narrow uint64 `json:"narrow,omitempty"`
}

// Where records lie. Names cannot hold a slash (names.go).
func kekPath(name string) string            { return "keks/" + name }
func bucketPath(name string) string         { return "buckets/" + name }
func spacePath(space string) string         { return "spaces/" + space }
func storePath(store, name string) string   { return "stores/" + store + "/" + name }
func currentPath(space string) string       { return "current/" + space }
func bucketKeysPath(space string) string    { return bucketKeysRoot + space + "/" }
func keyPath(space string, id KeyID) string { return bucketKeysPath(space) + id.String() }
func accessKeyPath(id string) string        { return "accesskeys/" + id }
func removalPath(space string) string       { return "removed/" + space }
func lastRemovalPath(name string) string    { return "lastremoved/" + name }

func highestPath(kek string) string { return "kekhighest/" + kek }

const (
	revocationPath = "revocation"
	bucketKeysRoot = "bucketkeys/"
	clockPath      = "clock"
)

// stored is a record as it was read, with the condition that it is still so.
type stored[T any] struct {
	record T
	is     Condition
}

type document struct {
	Schema int             `json:"schema"`
	Record json.RawMessage `json:"record"`
}

// put is the change that writes a record.
func put[T any](key string, record T) (Item, error) {
	body, err := json.Marshal(record)
	if err != nil {
		return Item{}, fmt.Errorf("kms: encoding %q: %w", key, err)
	}
	value, err := json.Marshal(document{Schema: schemaOf(record), Record: body})
	if err != nil {
		return Item{}, fmt.Errorf("kms: encoding %q: %w", key, err)
	}
	return Item{Key: key, Value: value}, nil
}

func decode[T any](item Item) (stored[T], error) {
	var doc document
	out := stored[T]{is: Condition{Key: item.Key, Revision: item.Revision}}
	if err := json.Unmarshal(item.Value, &doc); err != nil {
		return out, fmt.Errorf("kms: decoding %q: %w", item.Key, err)
	}
	if newest := newestSchema(item.Key); doc.Schema < schema || doc.Schema > newest {
		return out, fmt.Errorf("kms: decoding %q: record has schema %d, this program knows %d", item.Key, doc.Schema, newest)
	}
	if err := json.Unmarshal(doc.Record, &out.record); err != nil {
		return out, fmt.Errorf("kms: decoding %q: %w", item.Key, err)
	}
	return out, nil
}

// read gets one record or ErrNotFound.
func read[T any](ctx context.Context, r Registry, key string) (stored[T], error) {
	item, err := r.Get(ctx, key)
	if err != nil {
		return stored[T]{is: absent(key)}, err
	}
	return decode[T](item)
}

// readMaybe gets one record; its absence is no error but the zero record, whose
// condition is that it is still absent.
func readMaybe[T any](ctx context.Context, r Registry, key string) (stored[T], error) {
	s, err := read[T](ctx, r, key)
	if errors.Is(err, ErrNotFound) {
		return stored[T]{is: absent(key)}, nil
	}
	return s, err
}

// exists says whether there was a record.
func (s stored[T]) exists() bool { return s.is.Revision != 0 }

func list[T any](ctx context.Context, r Registry, prefix string) ([]stored[T], error) {
	items, err := r.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	out := make([]stored[T], 0, len(items))
	for _, item := range items {
		s, err := decode[T](item)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func records[T any](in []stored[T]) []T {
	out := make([]T, len(in))
	for i := range in {
		out[i] = in[i].record
	}
	return out
}
