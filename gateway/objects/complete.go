package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// Complete makes the object out of its parts: it verifies what the client says of
// them, seals the part table into the trailer and has the backend put it together.
func (s *Service) Complete(ctx context.Context, r CompleteRequest) (PutResult, error) {
	u, err := s.openUpload(ctx, r.UploadRef, true)
	if err != nil {
		return s.completeAgain(ctx, r, err)
	}
	result, err := s.complete(ctx, u, r)
	if err != nil {
		return PutResult{}, fmt.Errorf("objects: completing an upload of %q: %w", r.Key, err)
	}
	if err := s.clearUpload(context.WithoutCancel(ctx), u.store, r.UploadRef); err != nil {
		s.log.Warn("an upload's stash is left behind", zap.String("bucket", r.Bucket.Name), zap.Error(err))
	}
	return result, nil
}

func (s *Service) complete(ctx context.Context, u *upload, r CompleteRequest) (PutResult, error) {
	c := &completion{upload: u, r: r}
	if err := c.checkType(); err != nil {
		return PutResult{}, err
	}
	if err := c.openParts(ctx); err != nil {
		return PutResult{}, err
	}
	checksum, err := c.checksum()
	if err != nil {
		return PutResult{}, err
	}
	if c.cond, err = s.writeConditions(ctx, u.Bucket, u.Key, "", r.IfMatch, r.IfNoneMatch); err != nil {
		return PutResult{}, err
	}
	c.cond = pinnedTo(c.cond, r.pinned)
	md5 := c.md5()
	tail, err := s.suite.NewTail(u.stash.DEK, c.parts, checksum.late(), md5)
	if err != nil {
		return PutResult{}, err
	}
	var written backends.Written
	err = s.recorded(ctx, writing{bucket: u.Bucket, key: u.Key, tag: u.tag, do: func() (err error) {
		written, err = c.finish(ctx, tail)
		if errors.Is(err, backends.ErrUploadNotFound) {
			written, err = s.completed(ctx, u, err)
		}
		if err != nil {
			return err
		}
		return u.live() // as guarded.ended
	}})
	if err != nil {
		return PutResult{}, err
	}
	return PutResult{
		ETag: s.wrote(u.Bucket, u.Key, written.ETag, md5, len(c.parts)), Version: written.Version, Modified: written.Modified,
		Size: c.length(), KEK: u.Bucket.KEK, Checksum: checksum,
	}, nil
}

// completed finds out whether an upload that the backend no longer has became the
// object that is there: then an earlier Complete's answer was lost.
func (s *Service) completed(ctx context.Context, u *upload, cause error) (backends.Written, error) {
	info, err := u.store.Head(ctx, idOf(u.Bucket, u.Key, ""), nil)
	if err != nil {
		return backends.Written{}, cause
	}
	env, _, err := s.openEnvelope(u.Bucket, u.Key, info, s.finder(ctx, u.Bucket))
	if err != nil || !env.DEK.Equal(u.stash.DEK) {
		return backends.Written{}, cause
	}
	return backends.Written{ETag: info.ETag, Version: info.Version, Modified: info.Modified}, nil
}

// completion is one Complete under way.
type completion struct {
	*upload
	r      CompleteRequest
	parts  []sealed.Part
	pieces []backends.Part // what the backend puts together
	cond   backends.Conditions
}

// openParts verifies the client's list of parts.
func (c *completion) openParts(ctx context.Context) error {
	if len(c.r.Parts) == 0 {
		return fmt.Errorf("%w: none are listed", backends.ErrInvalidPart)
	}
	known := &knownParts{upload: c.upload}
	for i, p := range c.r.Parts {
		if i > 0 && p.Number <= c.r.Parts[i-1].Number {
			return fmt.Errorf("part %d: %w", p.Number, ErrPartOrder)
		}
		if err := c.openPart(ctx, p, known); err != nil {
			return fmt.Errorf("part %d: %w", p.Number, err)
		}
	}
	if c.r.Size >= 0 && c.r.Size != c.length() {
		return &SizeError{Stated: c.r.Size, Computed: c.length()}
	}
	return c.checkSizes()
}

func (c *completion) openPart(ctx context.Context, p CompletePart, known *knownParts) error {
	etag, part, err := sealed.OpenETag(c.stash.DEK, c.ID, p.Number, p.ETag)
	switch {
	case errors.Is(err, sealed.ErrNoToken):
		etag = backendETag(p.ETag)
		if part, err = known.find(ctx, p.Number, etag); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("%w: %w", backends.ErrInvalidPart, err)
	}
	if err := c.checkPartChecksum(p, part); err != nil {
		return err
	}
	c.parts = append(c.parts, part)
	c.pieces = append(c.pieces, backends.Part{Number: p.Number, ETag: etag, Size: sealed.MessageSize(part.Length)})
	return nil
}

func (c *completion) length() (n int64) {
	for _, p := range c.parts {
		n += p.Length
	}
	return n
}

// checkSizes finds a part that only the last could be.
func (c *completion) checkSizes() error {
	for _, p := range c.parts[:len(c.parts)-1] {
		if short(p.Length) {
			return fmt.Errorf("part %d of %d bytes: %w", p.Number, p.Length, backends.ErrTooSmall)
		}
	}
	return nil
}

// finish has the backend put the object together.
func (c *completion) finish(ctx context.Context, tail *sealed.Tail) (backends.Written, error) {
	if err := c.storeTail(ctx, tail); err != nil {
		return backends.Written{}, err
	}
	return c.mp.Complete(ctx, c.backendID(), c.pieces, c.cond)
}

// storeTail stores what follows the parts: as a part of its own, or together with
// a last part that was staged.
func (c *completion) storeTail(ctx context.Context, tail *sealed.Tail) error {
	last := c.pieces[len(c.pieces)-1]
	if !staged(last.Number, c.parts[len(c.parts)-1].Length) {
		part, err := c.mp.PutPart(ctx, c.backendID(), last.Number+1, backends.Body{Reader: tail.Reader(), Size: tail.Size()})
		c.pieces = append(c.pieces, part)
		return err
	}
	id := idOf(c.Bucket, c.stagedName(last.Number), "")
	object, err := c.store.Get(ctx, id, &backends.GetOptions{Conditions: backends.Conditions{IfMatch: []string{last.ETag}}})
	if errors.Is(err, backends.ErrNotFound) || errors.Is(err, backends.ErrPrecondition) {
		return fmt.Errorf("%w: part %d: %w", backends.ErrInvalidPart, last.Number, err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = object.Body.Close() }()
	if object.Size != last.Size {
		return fmt.Errorf("%w: part %d was staged in %d bytes, want %d", sealed.ErrCorrupt, last.Number, object.Size, last.Size)
	}
	body := backends.Body{Reader: io.MultiReader(object.Body, tail.Reader()), Size: object.Size + tail.Size()}
	part, err := c.mp.PutPart(ctx, c.backendID(), last.Number, body)
	c.pieces[len(c.pieces)-1] = part
	return err
}

// checkType compares the type that the client names with the upload's.
func (c *completion) checkType() error {
	want, composite := c.algorithm()
	if c.r.Type == AnyType || composite == (c.r.Type == CompositeType) {
		return nil
	}
	return &ChecksumError{Want: want, Composite: composite, Err: ErrChecksumType}
}

// checkPartChecksum compares what the client says of a part's checksum with what
// its token vouches for.
func (c *completion) checkPartChecksum(p CompletePart, part sealed.Part) error {
	algorithm, composite := c.algorithm()
	broken := &ChecksumError{Part: p.Number, Want: algorithm, Got: p.Algorithm, Composite: composite}
	known := c.checksumOf(part)
	switch {
	case p.Checksum == nil && composite:
		broken.Err = ErrChecksumMissing
		return broken
	case p.Checksum == nil:
		return nil
	case p.Algorithm != algorithm && c.stash.Algorithm != sealed.NoChecksum:
		broken.Err = ErrChecksumAlgorithm
		return broken
	case p.Algorithm != algorithm, known != nil && !bytes.Equal(known.Value, p.Checksum):
		return fmt.Errorf("%w: another checksum", backends.ErrInvalidPart)
	}
	return nil
}

// checksum is the object's, by the upload's algorithm: nil where an unbound part
// hides it.
func (c *completion) checksum() (*Checksum, error) {
	got := c.combined()
	if want := c.r.Checksum; want != nil && (got == nil || !got.is(*want)) {
		return nil, ErrChecksumMismatch
	}
	return got, nil
}

// is compares with a checksum that a client states, with or without the number of
// parts behind a composite one.
func (c Checksum) is(stated Checksum) bool {
	if stated.Composite && (!c.Composite || c.Parts != stated.Parts) {
		return false
	}
	return c.Algorithm == stated.Algorithm && bytes.Equal(c.Value, stated.Value)
}

func (c *completion) combined() *Checksum {
	values := make([][]byte, 0, len(c.parts))
	for _, p := range c.parts {
		value := c.checksumOf(p)
		if value == nil {
			return nil
		}
		values = append(values, value.Value)
	}
	algorithm, composite := c.algorithm()
	if composite {
		return &Checksum{Algorithm: algorithm, Composite: true, Parts: len(values), Value: algorithm.composite(values)}
	}
	whole := values[0]
	for i, v := range values[1:] {
		whole = algorithm.combine(whole, v, c.parts[i+1].Length)
	}
	return &Checksum{Algorithm: algorithm, Value: whole}
}

// late is the checksum as the trailer carries it.
func (c *Checksum) late() *sealed.Checksum {
	if c == nil {
		return nil
	}
	out := c.toSealed()
	return &out
}

// knownParts looks up parts whose ETags carry no token: a client kept nothing but the
// backend's ETag, or the token could not be found when it listed the parts.
type knownParts struct {
	*upload
	listed []storedPart
	read   bool
}

// find finds the part by the backend's ETag. Where no token is kept for it, its salt
// is not bound (FORMAT.md section 6).
func (l *knownParts) find(ctx context.Context, number int, etag string) (sealed.Part, error) {
	if !l.read {
		parts, err := l.list(ctx, 0, 0)
		if err != nil {
			return sealed.Part{}, err
		}
		l.listed, l.read = parts, true
	}
	i := slices.IndexFunc(l.listed, func(p storedPart) bool { return p.Number == number && p.Part.ETag == etag })
	if i < 0 {
		return sealed.Part{}, backends.ErrInvalidPart
	}
	return l.listed[i].Sealed, nil
}
