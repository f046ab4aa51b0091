package objects

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// The rollback guard keeps a digest of the newest write of each object in the KMS's
// registry, the ledger, and holds what the backend shows against it. DECISIONS.md says
// how a write and its digest stay together, and what is not found.

// marker makes the digests of one object, keyed by a key of its bucket: the registry
// learns neither names nor whether two objects are alike.
type marker struct {
	key  sealed.Key
	name []byte // space and key, each with its length before it
}

// ledgerLabel is what the digests' key is derived for.
const ledgerLabel = "chatelaine/rollback-guard/v1"

// marker fails where the key of a bucket may not be used.
func (s *Service) marker(ctx context.Context, b keys.Bucket, object string) (marker, error) {
	key, err := s.ledgerKey(ctx, b, ledgerLabel)
	if err != nil {
		return marker{}, err
	}
	return marker{key: key, name: lengthed(lengthed(nil, b.Space[:]), []byte(object))}, nil
}

func (s *Service) ledgerKey(ctx context.Context, b keys.Bucket, label string) (sealed.Key, error) {
	bk, err := s.keys.ByID(ctx, b, b.LedgerKey)
	if err != nil {
		return sealed.Key{}, fmt.Errorf("getting the key of the rollback guard: %w", err)
	}
	var out sealed.Key
	err = bk.Key.Use(func(secret []byte) error {
		derived, err := hkdf.Expand(sha256.New, secret, label, sealed.KeySize)
		if err != nil {
			return err
		}
		defer clear(derived)
		out, err = sealed.NewKey(derived)
		return err
	})
	return out, err
}

func lengthed(to, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(b))), b...)
}

// mark is HMAC-SHA256 of kind, the name and what, cut to 16 bytes.
func (m marker) mark(kind string, what []byte) (out keys.Mark, err error) {
	err = m.key.Use(func(key []byte) error {
		h := hmac.New(sha256.New, key)
		_, _ = h.Write(append(lengthed([]byte(kind+"\x00"), m.name), what...))
		out = keys.Mark(h.Sum(nil))
		return nil
	})
	return out, err
}

// object is the digest of the object's name.
func (m marker) object() (keys.Mark, error) { return m.mark("name", nil) }

// written is the tag of an object by its envelope's header, which is sealed anew for
// each object, and holds the key that opens its bytes and no others.
func (m marker) written(header string) (keys.Mark, error) { return m.mark("object", []byte(header)) }

// uploaded is the tag of what an upload is completed to. Its header lies at the backend
// since the upload began; its data key is in the stash too.
func (m marker) uploaded(dek sealed.Key) (out keys.Mark, err error) {
	err = dek.Use(func(secret []byte) error {
		out, err = m.mark("upload", secret)
		return err
	})
	return out, err
}

// tagOf is the tag of an object to be stored with these attributes.
func tagOf(attrs backends.Attributes) func(marker) (keys.Mark, error) {
	return func(m marker) (keys.Mark, error) { return m.written(attrs.Metadata[sealed.MetadataName]) }
}

func (u *upload) tag(m marker) (keys.Mark, error) { return m.uploaded(u.stash.DEK) }

// tagsOf are those of an object as it was found: either may be in the ledger.
func (m marker) tagsOf(info backends.Info, env sealed.Envelope) ([]keys.Mark, error) {
	tag, err := m.written(headerOf(info))
	if err != nil || env.Kind != sealed.Multipart {
		return []keys.Mark{tag}, err
	}
	upload, err := m.uploaded(env.DEK)
	return []keys.Mark{tag, upload}, err
}

// newAttempt names an attempt to write.
func newAttempt() (id keys.Mark) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
