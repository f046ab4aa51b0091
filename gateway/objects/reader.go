package objects

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// Reader is an object, or a span of it, being read. WriteTo may be called once;
// Close in any case. It is for one goroutine.
type Reader struct {
	Stat Stat
	Span Span

	body   io.ReadCloser
	opener *sealed.Opener
	plain  bool // body has the span itself
	live   func() error
	watch  func() (stop func())
	done   func()
}

// WriteTo writes the span to w, a batch of up to 1 MiB at a time, each verified
// before it is written. When it fails after its first Write, what was written is
// authentic but not all: the answer must be cut, not ended. A key that is blocked
// meanwhile ends it too.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	if r.opener == nil && !r.plain {
		return 0, nil
	}
	defer r.watch()()
	n, err := r.from().WriteTo(&guardedWriter{w: w, live: r.live})
	if err != nil {
		err = cmp.Or(r.live(), err) // an interruption says less
	}
	return n, err
}

// Close lets the backend's answer go.
func (r *Reader) Close() error {
	r.done()
	var err error
	if r.opener != nil {
		err = r.opener.Close()
	}
	return errors.Join(err, r.body.Close())
}

// guardedWriter writes for as long as the key may be used.
type guardedWriter struct {
	w    io.Writer
	live func() error
}

func (g *guardedWriter) Write(p []byte) (int, error) {
	if err := g.live(); err != nil {
		return 0, err
	}
	return g.w.Write(p)
}

// reader puts a Reader on a backend's answer, which the Reader closes.
func (q *query) reader(f *found, span Span, object *backends.Object, header []byte) (*Reader, error) {
	if f.plain {
		return q.plainReader(f, span, object)
	}
	st, err := q.stat(f)
	if err != nil {
		return nil, err
	}
	options, done := q.stream(span.Length)
	opener, err := q.suite.NewOpener(f.table, f.env.DEK, object.Body, sealed.Read{
		Window: sealed.Window{Offset: object.Range.Offset, Length: object.Range.Length},
		Off:    span.Offset, N: span.Length, Header: header, Options: options,
	})
	if err != nil {
		done()
		return nil, err
	}
	live := func() error { return q.keys.Live(f.keyID) }
	watch := func() func() { return watched(q.ctx, live) }
	return &Reader{Stat: st, Span: span, body: object.Body, opener: opener, live: live, watch: watch, done: done}, nil
}

// stat says what is known of an object, with its late checksum where that was
// asked for.
func (q *query) stat(f *found) (Stat, error) {
	etag, err := q.etag(f)
	if err != nil {
		return Stat{}, err
	}
	st := stat(q.r.Bucket, f.info, f.env, f.table.Length(), etag)
	if st.Plain = f.plain; f.env.Kind == sealed.Multipart {
		st.Parts = f.table.Len()
	}
	if !q.r.Checksums {
		return st, nil
	}
	late, ok, err := q.lateChecksum(f)
	if err != nil {
		return st, err
	}
	if ok {
		st.Checksums = append(st.Checksums, fromSealedChecksum(late))
	}
	return st, nil
}

// lateChecksum is the checksum that only the trailer knows.
func (q *query) lateChecksum(f *found) (sealed.Checksum, bool, error) {
	table := f.table
	if f.env.Kind == sealed.Single {
		if f.env.Attributes.LateChecksum == sealed.NoChecksum {
			return sealed.Checksum{}, false, nil
		}
		var err error
		if table, err = q.singleTrailer(f); err != nil {
			return sealed.Checksum{}, false, err
		}
	}
	c, ok := table.Checksum()
	return c, ok, nil
}

// singleTrailer reads the trailer of an object of a single PUT, once.
func (q *query) singleTrailer(f *found) (*sealed.Table, error) {
	if f.full != nil {
		return f.full, nil
	}
	data, err := q.trailer(f)
	if err != nil {
		return nil, err
	}
	f.full, err = q.suite.OpenSingleTrailer(data, f.env, f.info.Size)
	return f.full, err
}

// read reads a small window of an object whose ETag is known.
func (q *query) read(f *found, w sealed.Window) ([]byte, error) {
	o, err := q.store.Get(q.ctx, q.id, &backends.GetOptions{
		Range:      &backends.Range{Offset: w.Offset, Length: w.Length},
		Conditions: backends.Conditions{IfMatch: []string{f.info.ETag}},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Body.Close() }()
	data := make([]byte, w.Length)
	if _, err := io.ReadFull(o.Body, data); err != nil {
		return nil, fmt.Errorf("reading %d bytes at %d: %w", w.Length, w.Offset, err)
	}
	return data, nil
}
