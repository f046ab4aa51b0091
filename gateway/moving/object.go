package moving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/minio/crc64nvme"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// octetStream is what all that the gateway stores is called.
const octetStream = "application/octet-stream"

func putSmall(ctx context.Context, p Place, key string, data []byte) error {
	body := backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}
	opts := &backends.PutOptions{Attributes: backends.Attributes{ContentType: octetStream}}
	_, err := p.Store.Put(ctx, backends.ObjectID{Bucket: p.Bucket, Key: key}, body, opts)
	return err
}

// object copies a client's object unless the same is there and was read back.
func (m *mover) object(ctx context.Context, p pair) error {
	if p.to != nil && p.to.Size == p.from.Size {
		same, err := m.same(ctx, p.key)
		if err != nil {
			return err
		}
		if same {
			return nil
		}
	}
	err := m.copy(ctx, p.key)
	if errors.Is(err, backends.ErrNotFound) {
		return nil // a client has deleted it; the next run does so too
	}
	return err
}

// same says whether both ends hold one object. The same envelope means the same data:
// it is sealed with fresh random bytes each time, and has the data's key in it. What no
// run has read back yet is read at both ends.
func (m *mover) same(ctx context.Context, key string) (bool, error) {
	from, err := m.From.Store.Head(ctx, m.from(key), nil)
	if err == nil {
		var to backends.Info
		if to, err = m.To.Store.Head(ctx, m.to(key), nil); err == nil && !sameInfo(from, to) {
			return false, nil
		}
	}
	if errors.Is(err, backends.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if key <= m.old {
		m.note(func(r *Report) { r.Already++ })
		return true, nil
	}
	want, err := m.sum(ctx, m.From, key, from)
	if err != nil {
		return false, ignoreGone(err)
	}
	got, err := m.sum(ctx, m.To, key, from)
	if err != nil || got != want {
		return false, ignoreGone(err)
	}
	m.note(func(r *Report) { r.Verified++ })
	return true, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, backends.ErrNotFound) || errors.Is(err, errDiffers) {
		return nil
	}
	return err
}

func sameInfo(a, b backends.Info) bool {
	return a.Size == b.Size && maps.Equal(a.Attributes.Metadata, b.Attributes.Metadata)
}

// sum reads an object and returns the CRC64NVME of its bytes; errDiffers where it is not
// the one that was looked at.
func (m *mover) sum(ctx context.Context, p Place, key string, want backends.Info) (uint64, error) {
	o, err := p.Store.Get(ctx, backends.ObjectID{Bucket: p.Bucket, Key: key}, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = o.Body.Close() }()
	if !sameInfo(o.Info, want) {
		return 0, fmt.Errorf("%w: size or metadata", errDiffers)
	}
	h := crc64nvme.New()
	n, err := io.Copy(h, o.Body)
	if err == nil && n != want.Size {
		err = fmt.Errorf("%w: %d bytes of %d", errDiffers, n, want.Size)
	}
	return h.Sum64(), err
}

// copy copies an object, and reads it back.
func (m *mover) copy(ctx context.Context, key string) error {
	o, err := m.From.Store.Get(ctx, m.from(key), nil)
	if err != nil {
		return err
	}
	defer func() { _ = o.Body.Close() }()
	if !looksSealed(o.Info) {
		return errNotSealed
	}
	attrs, err := m.attributes(ctx, key, o.Info)
	if err != nil {
		return err
	}
	if err := m.unmark(ctx, key); err != nil {
		return err
	}
	h := crc64nvme.New()
	body := backends.Body{Reader: io.TeeReader(o.Body, h), Size: o.Size}
	if _, err := objects.StoreWhole(ctx, m.To.Store, m.to(key), body, &backends.PutOptions{Attributes: attrs}); err != nil {
		return err
	}
	got, err := m.sum(ctx, m.To, key, o.Info)
	if err == nil && got != h.Sum64() {
		err = errDiffers
	}
	if err != nil {
		return err
	}
	m.note(func(r *Report) {
		r.Copied++
		r.CopiedBytes += uint64(o.Size)
	})
	return nil
}

// unmark takes the mark back before an object below it is written anew: if this run is
// killed, nobody may believe that what it has written was read back.
func (m *mover) unmark(ctx context.Context, key string) (err error) {
	if key > m.old {
		return nil
	}
	m.lower.Do(func() {
		m.mark.Verified = ""
		err = m.writeMark(ctx)
	})
	return err
}

// attributes are what the copy is to have: the envelope as it is, tags and lock.
func (m *mover) attributes(ctx context.Context, key string, info backends.Info) (backends.Attributes, error) {
	out := backends.Attributes{ContentType: info.Attributes.ContentType, Metadata: info.Attributes.Metadata}
	if lock := info.Attributes.Lock; !m.WithoutLocks && (lock.Mode != "" || lock.Hold) {
		if _, ok := backends.As[backends.Locker](m.To.Store); !ok {
			return out, errLock
		}
		out.Lock = lock
		out.Lock.Lifted = false
	}
	if m.WithoutTags || info.TagCount == 0 {
		return out, nil
	}
	tagger, ok := backends.As[backends.Tagger](m.From.Store)
	if _, keeps := backends.As[backends.Tagger](m.To.Store); !ok || !keeps {
		return out, errTags
	}
	var err error
	out.Tags, _, err = tagger.Tags(ctx, backends.ObjectID{Bucket: m.From.Bucket, Key: key, Version: info.Version})
	return out, err
}
