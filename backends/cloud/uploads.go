package cloud

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"chatelaine/backends"
)

// idLength is that of an upload's ID, in hexadecimal digits: the time in nanoseconds,
// and chance.
const idLength = 32

// NewUploadID is an ID that no upload has had. IDs sort by time.
func NewUploadID(now time.Time) string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // it never fails
	return fmt.Sprintf("%016x%x", now.UnixNano(), b)
}

// CheckUploadID is backends.ErrUploadNotFound for what NewUploadID never makes.
func CheckUploadID(id string) error {
	if raw, err := hex.DecodeString(id); err != nil || hex.EncodeToString(raw) != id || len(id) != idLength {
		return fmt.Errorf("%w: ID %.80q", backends.ErrUploadNotFound, id)
	}
	return nil
}

// EncodeKey writes an object's key as metadata of its upload can have it.
func EncodeKey(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

// DecodeKey undoes EncodeKey; empty where text is not of its making.
func DecodeKey(text string) string {
	key, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	return string(key)
}

// Uploads are those of a driver that keeps each as a record, an object that says what
// there is to be, and each of its parts as another. Whoever ends an upload removes its
// record first and then the parts that it finds. The funcs may be called concurrently.
type Uploads struct {
	// Find is nil where an upload's record is there, and ErrUploadNotFound where not.
	Find func(ctx context.Context, id backends.UploadID) error
	// Parts lists all parts of an upload.
	Parts func(ctx context.Context, id backends.UploadID) ([]backends.Part, error)
	// Remove removes a part, which may be gone.
	Remove func(ctx context.Context, id backends.UploadID, number int) error
}

// NewPart has do make a part's object. A part that is there only after its upload has
// ended finds no record, and goes.
func (u Uploads) NewPart(ctx context.Context, id backends.UploadID, number int, do func() (backends.Part, error)) (backends.Part, error) {
	if err := backends.CheckPartNumber(number); err != nil {
		return backends.Part{}, err
	}
	if err := u.Find(ctx, id); err != nil {
		return backends.Part{}, err
	}
	part, err := do()
	if err != nil {
		return backends.Part{}, err
	}
	if err := u.Find(ctx, id); err != nil {
		if errors.Is(err, backends.ErrUploadNotFound) {
			err = Join(err, u.Remove(ctx, id, number))
		}
		return backends.Part{}, err
	}
	part.Number = number
	return part, nil
}

// Named are the parts that a Complete names, as they are in the store.
func (u Uploads) Named(ctx context.Context, id backends.UploadID, parts []backends.Part) ([]backends.Part, error) {
	all, err := u.Parts(ctx, id)
	if err != nil {
		return nil, err
	}
	have := make(map[int]backends.Part, len(all))
	for _, p := range all {
		have[p.Number] = p
	}
	return backends.CheckParts(parts, have)
}

// Blame says why a Complete failed with err: it tells an upload that others have ended,
// and a part that was replaced in between, from a condition of the object that does not
// hold.
func (u Uploads) Blame(ctx context.Context, id backends.UploadID, parts []backends.Part, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if found := u.Find(ctx, id); errors.Is(found, backends.ErrUploadNotFound) {
		return found
	}
	if _, named := u.Named(ctx, id, parts); errors.Is(named, backends.ErrInvalidPart) {
		return named
	}
	return err
}
