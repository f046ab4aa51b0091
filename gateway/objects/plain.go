package objects

import (
	"errors"
	"fmt"
	"io"
	"maps"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// Plaintext is served in one case alone: the object's bucket is being adopted, the
// object has no envelope, the backend says that it was there before, and the adoption
// has not come by it yet (keys.Bucket.MayBePlain). Each time is logged and counted. See
// DECISIONS.md on what a hostile provider can do with that.

// errReplaced: the object was sealed, or written by a client, between two looks at it.
var errReplaced = errors.New("object was replaced meanwhile")

// again does what reads plaintext once more where the object was replaced meanwhile.
// Something else is found then, so it hardly ever takes three times.
func again[T any](do func() (T, error)) (T, error) {
	for left := 3; ; left-- {
		out, err := do()
		if left == 0 || !errors.Is(err, errReplaced) {
			return out, err
		}
	}
}

func isPlain(b keys.Bucket, key string, info backends.Info) bool {
	_, ours := info.Attributes.Metadata[sealed.MetadataName]
	return !ours && b.MayBePlain(key, info.Modified)
}

func (q *query) isPlain(info backends.Info) bool { return isPlain(q.r.Bucket, q.r.Key, info) }

// isPlain goes by what a listing says. No object that is sealed is as old as that, so
// no request more is needed.
func (r *rows) isPlain(info backends.Info) bool { return isPlain(r.bucket, info.Key, info) }

// openPlain takes an object as it is. The bucket's key must be usable: a block holds
// for all that is in the bucket.
func (q *query) openPlain(info backends.Info) (*found, error) {
	bk, err := q.keys.Current(q.ctx, q.r.Bucket)
	if err != nil {
		return nil, fmt.Errorf("getting the key of bucket %q: %w", q.r.Bucket.Name, err)
	}
	q.log.Warn("plaintext is served: the bucket is being adopted", zap.String("bucket", q.r.Bucket.Name), zap.String("key", q.r.Key))
	q.metrics.plain.WithLabelValues(q.r.Bucket.Store).Inc()
	info.Key = q.r.Key
	env := sealed.Envelope{Kind: sealed.Single, Length: info.Size, Attributes: foreignAttributes(info).toSealed()}
	return &found{info: info, env: env, keyID: bk.ID, plain: true}, nil
}

// foreignAttributes are those that an object was given by another way.
func foreignAttributes(info backends.Info) Attributes {
	h := info.Headers
	return Attributes{
		ContentType: info.Attributes.ContentType, ContentEncoding: h.ContentEncoding, ContentDisposition: h.ContentDisposition,
		ContentLanguage: h.ContentLanguage, CacheControl: h.CacheControl, Expires: h.Expires, Redirect: h.Redirect,
		Metadata: maps.Clone(info.Attributes.Metadata),
	}
}

// plainTable is good for offsets of plaintext; the object has no sealed ones.
func plainTable(f *found) (*sealed.Table, error) {
	return sealed.SingleTable(f.env, sealed.Size(f.env.Length))
}

// plainETag is the ETag that clients have known the object by; where ETags are not
// MD5s, it must not look like one.
func plainETag(b keys.Bucket, etag string) string {
	if b.MD5 {
		return etag
	}
	return visibleETag(etag)
}

// sameAnswer makes sure that an answer is about the plaintext object that was looked at,
// and has what was asked for. No tag would tell, so a provider that ignores a condition or
// a range is found out here or not at all.
func sameAnswer(b keys.Bucket, key string, info backends.Info, r backends.Range, object *backends.Object) error {
	if !isPlain(b, key, object.Info) || object.ETag != info.ETag || object.Size != info.Size {
		return fmt.Errorf("%w: %w: the backend answers with another one", errReplaced, backends.ErrUnavailable)
	}
	if object.Range != r {
		return fmt.Errorf("%w: the backend answers with %d bytes from %d, want %d from %d",
			backends.ErrUnavailable, object.Range.Length, object.Range.Offset, r.Length, r.Offset)
	}
	return nil
}

// fetchPlain reads a span, pinned to the object that was looked at.
func (q *query) fetchPlain(f *found, span Span) (*Reader, error) {
	if span.Length == 0 {
		return q.emptyReader(f, span)
	}
	object, err := q.store.Get(q.ctx, q.id, &backends.GetOptions{
		Range:      &backends.Range{Offset: span.Offset, Length: span.Length},
		Conditions: backends.Conditions{IfMatch: []string{f.info.ETag}},
	})
	if errors.Is(err, backends.ErrPrecondition) || errors.Is(err, backends.ErrRange) {
		return nil, fmt.Errorf("%w: %w", errReplaced, err)
	}
	if err != nil {
		return nil, err
	}
	reader, err := q.plainReader(f, span, object)
	if err != nil {
		return nil, errors.Join(err, object.Body.Close())
	}
	return reader, nil
}

// plainReader puts a Reader on an answer that has the span.
func (q *query) plainReader(f *found, span Span, object *backends.Object) (*Reader, error) {
	asked := backends.Range{Offset: span.Offset, Length: span.Length}
	if err := sameAnswer(q.r.Bucket, q.r.Key, f.info, asked, object); err != nil {
		return nil, err
	}
	st, err := q.stat(f)
	if err != nil {
		return nil, err
	}
	live := func() error { return q.keys.Live(f.keyID) }
	watch := func() func() { return watched(q.ctx, live) }
	return &Reader{Stat: st, Span: span, body: object.Body, plain: true, live: live, watch: watch, done: func() {}}, nil
}

// from is where the span's bytes come from.
func (r *Reader) from() io.WriterTo {
	if r.plain {
		return plainBody{r}
	}
	return r.opener
}

// plainBody passes on exactly the span.
type plainBody struct{ *Reader }

// WriteTo implements io.WriterTo.
func (b plainBody) WriteTo(w io.Writer) (int64, error) {
	n, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(b.body, b.Span.Length), make([]byte, max(1, min(b.Span.Length, 256<<10))))
	if err == nil && n < b.Span.Length {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// onlyWriter keeps io.Copy from reading around the guard.
type onlyWriter struct{ io.Writer }
