package objects

import (
	"context"
	"fmt"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// Head says what there is to say of an object, in one request to the backend;
// parts of a multipart object and late checksums cost one more.
//
// The size of a multipart object follows from its stored size alone: a provider
// that lies about it is found out when the object is read.
func (s *Service) Head(ctx context.Context, r GetRequest) (Stat, Span, error) {
	q, err := s.newQuery(ctx, r)
	if err != nil {
		return Stat{}, Span{}, err
	}
	h, err := q.head()
	if err != nil {
		return Stat{}, Span{}, fmt.Errorf("objects: asking for %q: %w", r.Key, q.visibleError(err))
	}
	return h.st, h.span, nil
}

func (q *query) head() (headed, error) {
	return vouched(q, func() (headed, error) {
		f, err := q.find()
		if err != nil {
			return headed{}, err
		}
		st, span, err := q.headOf(f)
		return headed{found: f, st: st, span: span}, err
	})
}

// headed is what there is to say of an object that was looked at.
type headed struct {
	found *found
	st    Stat
	span  Span
}

func (q *query) headOf(f *found) (Stat, Span, error) {
	if f.env.Kind == sealed.Multipart && q.r.Part == 0 && !q.r.Checksums {
		return q.headMultipart(f)
	}
	if err := q.addTable(f); err != nil {
		return Stat{}, Span{}, err
	}
	span, err := q.spanOf(f)
	if err != nil {
		return Stat{}, Span{}, err
	}
	st, err := q.stat(f)
	return st, span, err
}

// find asks the backend for the envelope alone.
func (q *query) find() (*found, error) {
	if q.checksConditions() {
		return q.findChecked()
	}
	info, err := q.store.Head(q.ctx, q.id, &backends.GetOptions{Conditions: q.r.Conditions})
	if err != nil {
		return nil, err
	}
	return q.open(info)
}

// findChecked is find where the backend does not know the ETags of conditions.
func (q *query) findChecked() (*found, error) {
	info, err := q.store.Head(q.ctx, q.id, nil)
	if err != nil {
		return nil, err
	}
	f, err := q.open(info)
	if err != nil {
		return nil, err
	}
	return f, q.check(f)
}

func (q *query) headMultipart(f *found) (Stat, Span, error) {
	length, ok := sealed.PlainSize(f.info.Size)
	if !ok {
		return Stat{}, Span{}, fmt.Errorf("%w: no object is stored in %d bytes", sealed.ErrCorrupt, f.info.Size)
	}
	span, err := resolve(q.r.Range, length)
	if err != nil {
		return Stat{}, Span{}, err
	}
	etag, err := q.etag(f)
	return stat(q.r.Bucket, f.info, f.env, length, etag), span, err
}

// spanOf is what a range or part number means for an object.
func (q *query) spanOf(f *found) (Span, error) {
	if q.r.Part == 0 {
		return resolve(q.r.Range, f.table.Length())
	}
	for i := range f.table.Len() {
		e := f.table.Entry(i)
		if e.Number == q.r.Part || (f.env.Kind == sealed.Single && q.r.Part == 1) {
			return Span{Offset: e.Plain, Length: e.Length, Partial: true}, nil
		}
	}
	return Span{}, &RangeError{Size: f.table.Length()}
}

// part reads one part by its number: the envelope and the part table first, then
// the bytes.
func (q *query) part() (*Reader, error) {
	f, err := q.find()
	if err != nil {
		return nil, err
	}
	if err := q.addTable(f); err != nil {
		return nil, err
	}
	span, err := q.spanOf(f)
	if err != nil {
		return nil, err
	}
	if span.Length > 0 {
		return q.fetch(f, span)
	}
	return q.emptyReader(f, span)
}

// emptyReader is a Reader of an empty part.
func (q *query) emptyReader(f *found, span Span) (*Reader, error) {
	st, err := q.stat(f)
	if err != nil {
		return nil, err
	}
	return &Reader{Stat: st, Span: span, body: nothing{}, done: func() {}}, nil
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }
func (nothing) Close() error             { return nil }
