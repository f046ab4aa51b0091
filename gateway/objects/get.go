package objects

import (
	"context"
	"errors"
	"fmt"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// Get opens an object for reading: one request to the backend for an object of a
// single PUT, ranged or not; for a multipart one its part table comes on top
// until it is known. The caller closes the Reader.
func (s *Service) Get(ctx context.Context, r GetRequest) (*Reader, error) {
	q, err := s.newQuery(ctx, r)
	if err != nil {
		return nil, err
	}
	reader, err := vouched(q, func() (*Reader, error) {
		if r.Part > 0 {
			return q.part()
		}
		return q.get()
	})
	if err != nil {
		return nil, fmt.Errorf("objects: getting %q: %w", r.Key, q.visibleError(err))
	}
	return reader, nil
}

// query is one Get or Head under way.
type query struct {
	*Service
	ctx   context.Context //nolint:containedctx // lives as long as one call
	r     GetRequest
	store backends.Store
	id    backends.ObjectID
	key   keyFinder // nil: the keyring
	// witness vouches for what is found. nil: nobody does.
	witness *witness
}

func (s *Service) newQuery(ctx context.Context, r GetRequest) (*query, error) {
	if err := checkKey(r.Key); err != nil {
		return nil, err
	}
	store, err := s.storeOf(r.Bucket)
	if err != nil {
		return nil, err
	}
	q := &query{Service: s, ctx: ctx, r: r, store: store, id: idOf(r.Bucket, r.Key, r.Version)}
	if !q.checksConditions() { // else check has them as they are
		q.r.Conditions.IfMatch = backendETags(r.Conditions.IfMatch)
		q.r.Conditions.IfNoneMatch = backendETags(r.Conditions.IfNoneMatch)
	}
	return q, nil
}

// found is an object whose envelope is open.
type found struct {
	info  backends.Info
	env   sealed.Envelope
	keyID [16]byte
	table *sealed.Table
	full  *sealed.Table // of a single PUT, with what its trailer says; nil until it is read
	plain bool          // it is not sealed yet (plain.go)
}

// get asks as if the object were of a single PUT, which one answer then serves.
func (q *query) get() (*Reader, error) {
	if q.checksConditions() && !q.r.Conditions.IsZero() {
		return q.getChecked()
	}
	if reader, err := q.getKnown(); reader != nil || err != nil {
		return reader, err
	}
	object, err := q.store.Get(q.ctx, q.id, &backends.GetOptions{Range: blindRange(q.r.Range), Conditions: q.r.Conditions})
	if errors.Is(err, backends.ErrRange) {
		return q.beyond(err)
	}
	if err != nil {
		return nil, err
	}
	reader, err := q.answer(object)
	if err != nil {
		return nil, errors.Join(err, object.Body.Close())
	}
	return reader, nil
}

// answer makes a Reader of a first answer.
func (q *query) answer(object *backends.Object) (*Reader, error) {
	f, err := q.open(object.Info)
	if err != nil {
		return nil, err
	}
	if f.plain && object.Range.Length > f.info.Size-object.Range.Offset {
		return nil, fmt.Errorf("%w: the backend answers with bytes behind the end", backends.ErrUnavailable)
	}
	whole := f.env.Kind == sealed.Single && !f.plain || q.r.Range == nil
	if err := q.addTable(f); err != nil {
		return nil, err
	}
	span, err := resolve(q.r.Range, f.table.Length())
	if err != nil {
		return nil, err
	}
	if whole {
		return q.reader(f, span, object, nil)
	}
	_ = object.Body.Close() // it was asked for as if it had one part
	return q.fetch(f, span)
}

// getKnown serves a range of a multipart object whose part table is cached, in one
// request that is pinned to its ETag. It returns nothing where there is no such
// table, or the object has changed.
func (q *query) getKnown() (*Reader, error) {
	known, ok := q.tables.Get(q.tableKey())
	if !ok || q.r.Range == nil || len(q.r.Conditions.IfMatch) > 0 || !q.r.Conditions.IfUnmodifiedSince.IsZero() {
		return nil, nil
	}
	span, err := resolve(q.r.Range, known.table.Length())
	if err != nil || span.Length == 0 {
		return nil, nil //nolint:nilerr // the cold path answers, from what is there now
	}
	f := &found{info: backends.Info{ETag: known.etag}, table: known.table}
	object, err := q.window(f, span)
	if errors.Is(err, backends.ErrPrecondition) || errors.Is(err, backends.ErrRange) || errors.Is(err, backends.ErrNotFound) {
		q.tables.Remove(q.tableKey())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !known.of(object.Info) { // the provider has ignored the condition
		q.tables.Remove(q.tableKey())
		return nil, object.Body.Close()
	}
	reader, err := q.answerKnown(object, known, span)
	if err != nil {
		return nil, errors.Join(err, object.Body.Close())
	}
	return reader, nil
}

func (q *query) answerKnown(object *backends.Object, known cachedTable, span Span) (*Reader, error) {
	f, err := q.open(object.Info)
	if err != nil {
		return nil, err
	}
	f.table = known.table
	header, err := q.header(f, span)
	if err != nil {
		return nil, err
	}
	return q.reader(f, span, object, header)
}

// open authenticates an answer's envelope.
func (q *query) open(info backends.Info) (*found, error) {
	if q.isPlain(info) {
		return q.openPlain(info)
	}
	find := q.key
	if find == nil {
		find = q.finder(q.ctx, q.r.Bucket)
	}
	env, id, err := q.openEnvelope(q.r.Bucket, q.r.Key, info, find)
	if err != nil {
		return nil, err
	}
	if q.witness != nil {
		if err := q.witness.vouchFor(q.ctx, info, env); err != nil {
			return nil, err
		}
	}
	info.Key = q.r.Key
	return &found{info: info, env: env, keyID: id}, nil
}

// addTable finds out where everything lies: from the envelope, the cache or the
// object's trailer.
func (q *query) addTable(f *found) (err error) {
	if f.plain {
		f.table, err = plainTable(f)
		return err
	}
	if f.env.Kind == sealed.Single {
		f.table, err = sealed.SingleTable(f.env, f.info.Size)
		return err
	}
	if known, ok := q.tables.Get(q.tableKey()); ok && known.of(f.info) {
		f.table = known.table
		return nil
	}
	if f.table, err = q.readTrailer(f); err == nil {
		q.tables.Add(q.tableKey(), cachedTable{etag: f.info.ETag, header: headerOf(f.info), table: f.table})
	}
	return err
}

// readTrailer reads the part table of a multipart object.
func (q *query) readTrailer(f *found) (*sealed.Table, error) {
	data, err := q.trailer(f)
	if err != nil {
		return nil, err
	}
	return q.suite.OpenTrailer(data, f.env.DEK, f.info.Size)
}

// trailer reads the end of an object whose ETag is known.
func (q *query) trailer(f *found) ([]byte, error) {
	w, err := sealed.TrailerWindow(f.info.Size)
	if err != nil {
		return nil, err
	}
	data, err := q.read(f, w)
	if err != nil {
		return nil, fmt.Errorf("reading the trailer: %w", err)
	}
	return data, nil
}

// header reads the part header that a range within an unbound part needs.
func (q *query) header(f *found, span Span) ([]byte, error) {
	w, needed := f.table.HeaderWindow(span.Offset, span.Length)
	if !needed {
		return nil, nil
	}
	return q.read(f, w)
}

// fetch reads a span of an object that is known by now, pinned to its ETag.
func (q *query) fetch(f *found, span Span) (*Reader, error) {
	if f.plain {
		return q.fetchPlain(f, span)
	}
	header, err := q.header(f, span)
	if err != nil {
		return nil, err
	}
	object, err := q.window(f, span)
	if err != nil {
		return nil, err
	}
	reader, err := q.reader(f, span, object, header)
	if err != nil {
		return nil, errors.Join(err, object.Body.Close())
	}
	return reader, nil
}

// window asks the backend for the sealed bytes of a span.
func (q *query) window(f *found, span Span) (*backends.Object, error) {
	w, err := f.table.Window(span.Offset, span.Length)
	if err != nil {
		return nil, err
	}
	cond := q.r.Conditions
	cond.IfMatch = []string{f.info.ETag}
	return q.store.Get(q.ctx, q.id, &backends.GetOptions{Range: &backends.Range{Offset: w.Offset, Length: w.Length}, Conditions: cond})
}

// beyond answers a range that begins beyond the stored object, with the size that
// the object's envelope vouches for. One that is not sealed may have the range.
func (q *query) beyond(cause error) (*Reader, error) {
	info, err := q.store.Head(q.ctx, q.id, &backends.GetOptions{Conditions: q.r.Conditions})
	if err != nil {
		return nil, err
	}
	f, err := q.open(info)
	if err != nil {
		return nil, err
	}
	if err := q.addTable(f); err != nil {
		return nil, err
	}
	if f.plain {
		span, err := resolve(q.r.Range, f.table.Length())
		if err != nil {
			return nil, err
		}
		return q.fetch(f, span)
	}
	return nil, fmt.Errorf("%w (the backend said: %w)", &RangeError{Size: f.table.Length()}, cause)
}

// blindRange is the sealed range that surely covers a range of plaintext, for an
// object of a single PUT of which nothing is known yet.
func blindRange(r *ByteRange) *backends.Range {
	switch {
	case r == nil:
		return nil
	case r.First < 0:
		return &backends.Range{Offset: -sealed.SuffixWindow(r.Last)}
	case r.Last < 0:
		return rangeOf(sealed.RangeWindow(r.First, sealed.ToEnd))
	}
	return rangeOf(sealed.RangeWindow(r.First, min(r.Last, sealed.MaxLength)-r.First+1))
}

func rangeOf(w sealed.Window) *backends.Range {
	return &backends.Range{Offset: w.Offset, Length: w.Length}
}

// resolve makes a range definite, now that the length is known.
func resolve(r *ByteRange, length int64) (Span, error) {
	if r == nil || length == 0 && r.First < 0 { // the end of nothing is all of it (RFC 9110 section 14.1.2)
		return Span{Length: length}, nil
	}
	first, last := r.First, length-1
	if first < 0 {
		first = max(0, length-r.Last)
	} else if r.Last >= 0 {
		last = min(last, r.Last)
	}
	if first >= length {
		return Span{}, &RangeError{Size: length}
	}
	return Span{Offset: first, Length: last - first + 1, Partial: true}, nil
}

// tableKey and cachedTable: part tables are kept by name. One holds for one ETag and,
// as a provider may show that of another object, for one envelope: its header, which
// is sealed anew for each object and is no secret.
type tableKey struct {
	space        keys.Space
	key, version string
}

type cachedTable struct {
	etag, header string
	table        *sealed.Table
}

// of says whether the table is that of the object that an answer speaks of.
func (c cachedTable) of(info backends.Info) bool {
	return c.etag == info.ETag && c.header == headerOf(info) && c.table.Stored() == info.Size
}

func headerOf(info backends.Info) string { return info.Attributes.Metadata[sealed.MetadataName] }

func (q *query) tableKey() tableKey {
	return tableKey{space: q.r.Bucket.Space, key: q.r.Key, version: q.r.Version}
}
