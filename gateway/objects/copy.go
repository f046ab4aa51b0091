package objects

import (
	"context"
	"errors"
	"fmt"
	"io"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// CopyRequest copies an object. Source names it and carries the conditions on it;
// its Range and Part are ignored.
type CopyRequest struct {
	Source GetRequest
	Bucket keys.Bucket
	Key    string
	// Replace puts Attributes in place of the source's. Their Redirect counts always.
	Replace bool
	Attributes
	// Algorithm asks for a checksum of the full object. Where the source lacks it, or
	// has one of its parts' checksums, the body is opened and sealed again. Empty keeps
	// the source's.
	Algorithm Algorithm
	// IfMatch and IfNoneMatch guard the destination, with visible ETags or "*".
	IfMatch, IfNoneMatch []string
	// KeepTags puts the source's tags in place of those of StoreAttributes.
	KeepTags bool
	StoreAttributes
}

// CopyResult is the answer to Copy. Modified is never zero.
type CopyResult struct {
	PutResult
	SourceVersion string
	Checksums     []Checksum
}

// Copy makes a copy of an object. The sealed bytes are copied as they are, by the
// backend itself where one backend holds both; only the envelope is sealed anew,
// for the new name and under the destination's key (FORMAT.md section 6).
func (s *Service) Copy(ctx context.Context, r CopyRequest) (CopyResult, error) {
	if err := checkKey(r.Key); err != nil {
		return CopyResult{}, err
	}
	r.Source.Range, r.Source.Part, r.Source.Checksums = nil, 0, true
	q, err := s.newQuery(ctx, r.Source)
	if err != nil {
		return CopyResult{}, err
	}
	conditions := q.r.Conditions
	result, err := again(func() (CopyResult, error) {
		q.r.Conditions = conditions
		return s.copy(ctx, q, r)
	})
	if err != nil {
		return CopyResult{}, fmt.Errorf("objects: copying %q to %q: %w", r.Source.Key, r.Key, err)
	}
	return result, nil
}

func (s *Service) copy(ctx context.Context, q *query, r CopyRequest) (CopyResult, error) {
	f, st, err := q.source()
	if err != nil {
		return CopyResult{}, err
	}
	result, err := s.copyFound(ctx, q, f, st, r)
	if isMissing(err) && q.guarded() && len(r.IfMatch) == 0 { // else it may be the destination
		err = errVanished
	}
	return result, err
}

// copyFound copies a source that was found.
func (s *Service) copyFound(ctx context.Context, q *query, f *found, st Stat, r CopyRequest) (_ CopyResult, err error) {
	if r.KeepTags {
		if r.Tags, err = q.tags(f); err != nil {
			return CopyResult{}, err
		}
	}
	result := CopyResult{SourceVersion: f.info.Version, Checksums: st.Checksums}
	again, err := q.sealsAgain(f, st, r)
	if err != nil {
		return CopyResult{}, err
	}
	if again {
		result.PutResult, result.Checksums, err = s.copyPlain(ctx, q, f, st, r)
	} else {
		result.PutResult, err = s.copySealed(ctx, q, f, r)
	}
	if result.Modified.IsZero() {
		result.Modified = s.now()
	}
	result.Size = f.table.Length()
	return result, err
}

// sealsAgain says whether the copy needs something that only reading the source's
// plaintext gives: a checksum, or an MD5 for its ETag. An MD5 is forgone where one
// PUT could not hold the copy.
func (q *query) sealsAgain(f *found, st Stat, r CopyRequest) (bool, error) {
	if f.plain || r.Algorithm != "" && !hasWhole(st.Checksums, r.Algorithm) {
		return true, nil
	}
	if !r.Bucket.MD5 || f.table.Length() > MaxPut {
		return false, nil
	}
	sum, _, err := q.md5(f)
	return sum == nil, err
}

// source finds the object to copy and all that is sealed about it.
func (q *query) source() (*found, Stat, error) {
	h, err := vouched(q, func() (headed, error) {
		f, err := q.find()
		if err != nil {
			return headed{}, sourceCondition(err)
		}
		if err := q.addTable(f); err != nil {
			return headed{}, err
		}
		st, err := q.stat(f)
		return headed{found: f, st: st}, err
	})
	return h.found, h.st, err
}

// tags reads the tags of an object; it asks the backend only where there are any.
func (q *query) tags(f *found) (backends.Tags, error) {
	tagger, ok := backends.As[backends.Tagger](q.store)
	if !ok || f.info.TagCount == 0 {
		return nil, nil
	}
	id := q.id
	if id.Version == "" {
		id.Version = f.info.Version
	}
	tags, _, err := tagger.Tags(q.ctx, id)
	return tags, err
}

// sourceCondition makes 304 a 412: a copy has no other way to say that its
// source's condition does not hold.
func sourceCondition(err error) error {
	if errors.Is(err, backends.ErrNotModified) {
		return fmt.Errorf("%w: the source was not modified", backends.ErrPrecondition)
	}
	return err
}

// hasWhole looks for a checksum of the full object: a copy is asked for nothing else.
func hasWhole(all []Checksum, a Algorithm) bool {
	for _, c := range all {
		if c.Algorithm == a && !c.Composite {
			return true
		}
	}
	return false
}

// copySealed copies the sealed bytes.
func (s *Service) copySealed(ctx context.Context, q *query, f *found, r CopyRequest) (PutResult, error) {
	store, err := s.storeOf(r.Bucket)
	if err != nil {
		return PutResult{}, err
	}
	bk, err := s.sealingKey(ctx, r.Bucket, store)
	if err != nil {
		return PutResult{}, err
	}
	attrs, err := s.storedAttributes(r.Bucket, r.Key, bk, r.envelope(f.env), r.StoreAttributes)
	if err != nil {
		return PutResult{}, err
	}
	cond, err := s.writeConditions(ctx, r.Bucket, r.Key, "", r.IfMatch, r.IfNoneMatch)
	if err != nil {
		return PutResult{}, err
	}
	c := &copying{query: q, f: f, store: store, id: idOf(r.Bucket, r.Key, ""), opts: &backends.PutOptions{Attributes: attrs, Conditions: cond}}
	var written backends.Written
	err = s.recorded(ctx, writing{bucket: r.Bucket, key: r.Key, tag: tagOf(attrs), do: func() (err error) {
		if written, err = c.run(ctx); err != nil {
			return err
		}
		return s.keys.Live(bk.ID) // as guarded.ended
	}})
	if err != nil {
		return PutResult{}, err
	}
	etag, err := q.copyETag(f, r, written.ETag)
	return PutResult{ETag: etag, Version: written.Version, Modified: written.Modified, KEK: r.Bucket.KEK}, err
}

// copyETag is the visible ETag of a copy of sealed bytes. It has the source's MD5.
func (q *query) copyETag(f *found, r CopyRequest, etag string) (string, error) {
	if !r.Bucket.MD5 {
		return visibleETag(etag), nil
	}
	sum, parts, err := q.md5(f)
	if err != nil {
		return "", err
	}
	return q.wrote(r.Bucket, r.Key, etag, sum, parts), nil
}

// envelope is the source's, with what the client replaces. The checksums speak of
// the data and stay. A redirect is of one object alone: it is the copy's own or none.
func (r CopyRequest) envelope(e sealed.Envelope) sealed.Envelope {
	if !r.Replace {
		e.Attributes.Redirect = r.Redirect
		return e
	}
	kept := e.Attributes
	e.Attributes = r.Attributes.toSealed()
	e.Attributes.Checksums, e.Attributes.LateChecksum = kept.Checksums, kept.LateChecksum
	e.Attributes.MD5, e.Attributes.LateMD5 = kept.MD5, kept.LateMD5
	return e
}

// copying is the copying of sealed bytes under way.
type copying struct {
	*query
	f     *found
	store backends.Store // of the destination
	id    backends.ObjectID
	opts  *backends.PutOptions
}

// run has the backend copy, in parts where it is too much at once; between two
// backends the bytes go through the gateway, still sealed.
func (c *copying) run(ctx context.Context) (backends.Written, error) {
	copier, ok := backends.As[backends.Copier](c.store)
	if !ok || c.store != c.query.store {
		return c.stream(ctx)
	}
	if c.f.info.Size > copier.MaxCopy() {
		return c.inParts(ctx, copier)
	}
	written, err := copier.Copy(ctx, c.sourceID(), c.id, &backends.CopyOptions{
		Attributes: c.opts.Attributes, SourceIfMatch: c.f.info.ETag, Conditions: c.opts.Conditions,
	})
	if errors.Is(err, backends.ErrUnsupported) { // of this bucket or name, or with these conditions
		return c.stream(ctx)
	}
	return written, err
}

// sourceID pins the version that was looked at.
func (c *copying) sourceID() backends.ObjectID {
	id := c.query.id
	if id.Version == "" {
		id.Version = c.f.info.Version
	}
	return id
}

func (c *copying) stream(ctx context.Context) (backends.Written, error) {
	object, err := c.query.store.Get(ctx, c.sourceID(), &backends.GetOptions{
		Conditions: backends.Conditions{IfMatch: []string{c.f.info.ETag}},
	})
	if err != nil {
		return backends.Written{}, err
	}
	defer func() { _ = object.Body.Close() }()
	if object.Size != c.f.info.Size {
		return backends.Written{}, fmt.Errorf("%w: the source has another size than before", sealed.ErrCorrupt)
	}
	guard := &guarded{src: object.Body, live: func() error { return c.keys.Live(c.f.keyID) }}
	written, err := StoreWhole(ctx, c.store, c.id, backends.Body{Reader: guard, Size: object.Size}, c.opts)
	return written, guard.cause(err)
}

// inParts copies an object that is too large for one copy.
func (c *copying) inParts(ctx context.Context, copier backends.Copier) (backends.Written, error) {
	mp, ok := backends.As[backends.Multiparter](c.store)
	if !ok {
		return backends.Written{}, ErrUnsupported
	}
	upload, err := mp.CreateUpload(ctx, c.id.Bucket, c.id.Key, c.opts.Attributes)
	if err != nil {
		return backends.Written{}, err
	}
	written, err := c.copyParts(ctx, copier, mp, upload)
	if err != nil {
		return written, errors.Join(err, mp.Abort(context.WithoutCancel(ctx), upload))
	}
	return written, nil
}

// copyParts cuts the sealed bytes into pieces of equal size, as few as there can
// be, so that none but the last is below the backend's minimum.
func (c *copying) copyParts(ctx context.Context, copier backends.Copier, mp backends.Multiparter, upload backends.UploadID) (backends.Written, error) {
	size := c.f.info.Size
	count := (size + copier.MaxCopy() - 1) / copier.MaxCopy()
	piece := (size + count - 1) / count
	var parts []backends.Part
	for offset := int64(0); offset < size; offset += piece {
		r := &backends.Range{Offset: offset, Length: min(piece, size-offset)}
		part, err := copier.CopyPart(ctx, upload, len(parts)+1, c.sourceID(), r, c.f.info.ETag)
		if err != nil {
			return backends.Written{}, err
		}
		parts = append(parts, part)
	}
	return mp.Complete(ctx, upload, parts, c.opts.Conditions)
}

// copyPlain opens the source and seals it again, for a checksum or an MD5 that it lacks.
func (s *Service) copyPlain(ctx context.Context, q *query, f *found, st Stat, r CopyRequest) (PutResult, []Checksum, error) {
	reader, err := q.fetchWhole(f)
	if err != nil {
		return PutResult{}, nil, err
	}
	defer func() { _ = reader.Close() }()
	body := piped(reader)
	defer func() { _ = body.Close() }()
	put := PutRequest{
		Bucket: r.Bucket, Key: r.Key, Body: body, Size: f.table.Length(), Attributes: st.Attributes,
		Checksums: wholeChecksums(st.Checksums), MD5: f.env.Attributes.MD5,
		IfMatch: r.IfMatch, IfNoneMatch: r.IfNoneMatch, StoreAttributes: r.StoreAttributes,
	}
	if r.Algorithm != "" && !hasWhole(put.Checksums, r.Algorithm) {
		h := &hashing{src: body, h: r.Algorithm.NewHash()}
		put.Body, put.Checksums, put.Late, put.LateValue = h, nil, r.Algorithm, func() []byte { return h.h.Sum(nil) }
	}
	if f.plain && put.Late == "" {
		put.Late = CRC64NVME // as an upload that states none
	}
	if r.Replace {
		put.Attributes = r.Attributes
	}
	put.Redirect = r.Redirect
	result, err := s.Put(ctx, put)
	if put.LateValue != nil {
		put.Checksums = []Checksum{{Algorithm: r.Algorithm, Value: put.LateValue()}}
	}
	return result, put.Checksums, err
}

// wholeChecksums are those of the whole plaintext, which stay true of an object that
// is not in parts any more.
func wholeChecksums(all []Checksum) (whole []Checksum) {
	for _, c := range all {
		if !c.Composite {
			whole = append(whole, c)
		}
	}
	return whole
}

// fetchWhole reads all of an object that is known by now.
func (q *query) fetchWhole(f *found) (*Reader, error) {
	if f.table.Length() == 0 {
		return q.emptyReader(f, Span{})
	}
	return q.fetch(f, Span{Length: f.table.Length()})
}

// piped turns a Reader into an io.ReadCloser, whose Close ends the reading.
func piped(r *Reader) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() {
		_, err := r.WriteTo(pw)
		pw.CloseWithError(err)
	}()
	return pr
}

// CopyPartRequest makes a part of an object, or of a range of it.
type CopyPartRequest struct {
	UploadRef
	Number int
	Source GetRequest
}

// CopyPartResult is the answer to CopyPart.
type CopyPartResult struct {
	PartResult
	SourceVersion string
}

// CopyPart opens a range of the source and seals it as a part: an upload has a
// data key of its own.
func (s *Service) CopyPart(ctx context.Context, r CopyPartRequest) (CopyPartResult, error) {
	reader, err := s.Get(ctx, r.Source)
	if err != nil {
		return CopyPartResult{}, sourceCondition(err)
	}
	defer func() { _ = reader.Close() }()
	body := piped(reader)
	defer func() { _ = body.Close() }()
	part, err := s.addPart(ctx, PutPartRequest{UploadRef: r.UploadRef, Number: r.Number, Body: body, Size: reader.Span.Length}, false)
	return CopyPartResult{PartResult: part, SourceVersion: reader.Stat.Version}, err
}
