package objects

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

const (
	// MaxPut is the largest plaintext of one Put or part, in bytes.
	MaxPut = sealed.MaxPartSize
	// holdLimit is the largest body that is held in memory until its late checksum
	// is known, so that the envelope can carry it; above, the trailer does.
	holdLimit = 256 << 10
)

// Put seals a body and stores it, in one request to the backend.
func (s *Service) Put(ctx context.Context, r PutRequest) (PutResult, error) {
	if err := checkPut(r.Key, r.Size); err != nil {
		return PutResult{}, err
	}
	store, err := s.storeOf(r.Bucket)
	if err != nil {
		return PutResult{}, err
	}
	bk, err := s.sealingKey(ctx, r.Bucket, store)
	if err != nil {
		return PutResult{}, err
	}
	if r, err = r.hold(); err != nil {
		return PutResult{}, err
	}
	made, err := s.sealAndStore(ctx, store, bk, r)
	if err != nil {
		return PutResult{}, fmt.Errorf("objects: putting %q: %w", r.Key, err)
	}
	result := PutResult{
		ETag: s.wrote(r.Bucket, r.Key, made.ETag, made.md5, 0), Version: made.Version, Modified: made.Modified,
		Size: r.Size, KEK: r.Bucket.KEK, Checksum: made.late,
	}
	if made.late == nil && len(r.Checksums) > 0 {
		result.Checksum = &r.Checksums[0]
	}
	return result, nil
}

func checkPut(key string, size int64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if size > MaxPut {
		return fmt.Errorf("objects: putting %d bytes: %w", size, ErrBodyTooLarge)
	}
	return nil
}

// hold reads a small body of which something comes late, so that it is not late.
func (r PutRequest) hold() (PutRequest, error) {
	lacksMD5 := r.Bucket.MD5 && r.MD5 == nil
	if r.Late == "" && !lacksMD5 || r.Size > holdLimit {
		return r, nil
	}
	body := make([]byte, r.Size)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return r, shortBody(err)
	}
	if n, err := r.Body.Read(make([]byte, 1)); n != 0 {
		return r, fmt.Errorf("objects: holding a body: %w", sealed.ErrLongBody)
	} else if !errors.Is(err, io.EOF) {
		return r, fmt.Errorf("objects: reading the end of a body: %w", err)
	}
	r.Body = bytes.NewReader(body)
	if lacksMD5 {
		r.MD5 = md5Of(body)
	}
	if r.Late == "" {
		return r, nil
	}
	if r.LateValue == nil {
		h := r.Late.NewHash()
		_, _ = h.Write(body)
		r.LateValue = func() []byte { return h.Sum(nil) }
	}
	r.Checksums = append(r.Checksums, Checksum{Algorithm: r.Late, Value: r.LateValue()})
	r.Late, r.LateValue = "", nil
	return r, nil
}

// shortBody is what a body that ended early says: its sender is to blame, unless it is a
// copy's, which a store has cut.
func shortBody(err error) error {
	if (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && !errors.Is(err, backends.ErrUnavailable) {
		return fmt.Errorf("objects: holding a body: %w", sealed.ErrShortBody)
	}
	return fmt.Errorf("objects: reading a body: %w", err)
}

// made is what came of sealAndStore.
type made struct {
	backends.Written
	late *Checksum // nil where none came late
	md5  []byte    // nil where it is not known
}

// sealAndStore streams the sealed object to the store.
func (s *Service) sealAndStore(ctx context.Context, store backends.Store, bk keys.BucketKey, r PutRequest) (out made, err error) {
	cond, err := s.writeConditions(ctx, r.Bucket, r.Key, "", r.IfMatch, r.IfNoneMatch)
	if err != nil {
		return out, err
	}
	cond = pinnedTo(cond, r.pinned)
	dek, err := s.suite.NewDEK()
	if err != nil {
		return out, err
	}
	var sealer *sealed.Sealer
	options, done := s.stream(r.Size)
	defer done()
	if r.Late != "" {
		options.Checksum = func() (sealed.Checksum, error) {
			out.late = r.lateChecksum(sealer)
			return out.late.toSealed(), nil
		}
	}
	if out.md5 = r.MD5; r.lateMD5() {
		var sum func() []byte
		r.Body, sum = md5ed(r.Body)
		options.MD5 = func() []byte { out.md5 = sum(); return out.md5 }
	}
	if sealer, err = s.suite.NewSealer(r.Body, r.Size, dek, options); err != nil {
		return out, err
	}
	defer func() { _ = sealer.Close() }()
	attrs, err := s.storedAttributes(r.Bucket, r.Key, bk, s.singleEnvelope(r, dek, sealer.Part().Salt), r.StoreAttributes)
	if err != nil {
		return out, err
	}
	guard := &guarded{src: sealer, live: func() error { return s.keys.Live(bk.ID) }}
	defer watched(ctx, guard.live)()
	opts := &backends.PutOptions{Attributes: attrs, Conditions: cond}
	err = s.recorded(ctx, writing{bucket: r.Bucket, key: r.Key, tag: tagOf(attrs), do: func() (err error) {
		out.Written, err = StoreWhole(ctx, store, idOf(r.Bucket, r.Key, ""), backends.Body{Reader: guard, Size: sealer.Size()}, opts)
		return guard.ended(err)
	}})
	return out, err
}

// pinnedTo has a write replace one object and no other, if one is named.
func pinnedTo(cond backends.Conditions, etag string) backends.Conditions {
	if etag != "" {
		cond.IfMatch = []string{etag}
	}
	return cond
}

// lateMD5 says that the trailer is to carry the body's MD5.
func (r PutRequest) lateMD5() bool { return r.Bucket.MD5 && r.MD5 == nil && r.Late.fitsMD5() }

// lateChecksum is what the caller's LateValue gives, or the CRC64NVME that the
// sealer knows once it has read the body.
func (r PutRequest) lateChecksum(s *sealed.Sealer) *Checksum {
	if r.LateValue != nil {
		return &Checksum{Algorithm: r.Late, Value: r.LateValue()}
	}
	return &Checksum{Algorithm: CRC64NVME, Value: toBytes(s.Part().CRC, 8)}
}

func (s *Service) singleEnvelope(r PutRequest, dek sealed.Key, salt sealed.Salt) sealed.Envelope {
	e := sealed.Envelope{
		Kind: sealed.Single, DEK: dek, Length: r.Size, Salt: salt,
		Created: s.now(), Attributes: r.Attributes.toSealed(),
	}
	for _, c := range r.Checksums {
		e.Attributes.Checksums = append(e.Attributes.Checksums, c.toSealed())
	}
	e.Attributes.LateChecksum = r.Late.toSealed()
	e.Attributes.MD5, e.Attributes.LateMD5 = r.MD5, r.lateMD5()
	return e
}

// StoreWhole stores a sealed object as one, in several parts where it is larger than
// the store takes at once. Errors are the store's.
func StoreWhole(ctx context.Context, store backends.Store, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	mp, ok := backends.As[backends.Multiparter](store)
	if !ok || body.Size <= mp.MaxPut() {
		return store.Put(ctx, id, body, opts)
	}
	upload, err := mp.CreateUpload(ctx, id.Bucket, id.Key, opts.Attributes)
	if err != nil {
		return backends.Written{}, err
	}
	written, err := storeParts(ctx, mp, upload, body, opts.Conditions)
	if err != nil {
		return written, errors.Join(err, mp.Abort(context.WithoutCancel(ctx), upload))
	}
	return written, nil
}

// storeParts cuts a body into parts of a gibibyte.
func storeParts(ctx context.Context, mp backends.Multiparter, upload backends.UploadID, body backends.Body, cond backends.Conditions) (backends.Written, error) {
	const size = 1 << 30
	var parts []backends.Part
	for left := body.Size; left > 0; left -= size {
		n := min(left, size)
		part, err := mp.PutPart(ctx, upload, len(parts)+1, backends.Body{Reader: io.LimitReader(body.Reader, n), Size: n})
		if err != nil {
			return backends.Written{}, err
		}
		parts = append(parts, part)
	}
	return mp.Complete(ctx, upload, parts, cond)
}

// guarded passes sealed bytes on for as long as the key may be used, and keeps
// the error that ended them: a store's own error about a cut request says less.
type guarded struct {
	src  io.Reader
	live func() error
	err  error
}

func (g *guarded) Read(p []byte) (int, error) {
	if err := g.live(); err != nil {
		g.err = err
		return 0, err
	}
	n, err := g.src.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = cmp.Or(g.live(), err) // an interruption says less
		g.err = err
	}
	return n, err
}

// ended is the error of a write that the store has answered. A key that may not be
// used any more is one: the bucket may have been deleted and made again meanwhile, and
// what was written would be in another bucket than it was sealed for.
func (g *guarded) ended(err error) error {
	if err != nil && g.err != nil {
		return unsent{g.cause(err)}
	}
	return cmp.Or(err, g.live())
}

// cause is the reader's own error where there was one and the store failed.
func (g *guarded) cause(err error) error {
	if err != nil && g.err != nil && !errors.Is(err, g.err) {
		return fmt.Errorf("%w (the backend said: %w)", g.err, err)
	}
	return err
}
