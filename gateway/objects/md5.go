package objects

import (
	"context"
	"crypto/md5" //nolint:gosec // ETags of S3 are MD5s, not for secrecy
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// A bucket with "etag: md5" (keys.Bucket.MD5) shows the ETags that S3 has without
// encryption: the MD5 of the plaintext, and of a multipart object the MD5 of its
// parts' MD5s, "-" and their number (FORMAT.md section 7). It lies sealed in the
// envelope where it was known in time and in the trailer otherwise; an object that has
// none shows the ETag that it would show in any other bucket.

const (
	etagEntries = 32768 // remembered ETags; some 5 MiB with usual keys
	etagReaders = 32    // objects of one page that are looked at at once
)

// etagKey names an object by the backend's ETag, which no other bytes of it have.
type etagKey struct {
	space     keys.Space
	key, etag string
}

// shownETag is the visible ETag of an object, given what the backend calls it and the
// MD5 that it has, if any. Parts is 0 for an object of a single PUT.
func shownETag(b keys.Bucket, etag string, sum []byte, parts int) string {
	switch {
	case !b.MD5 || sum == nil:
		return visibleETag(etag)
	case parts > 0:
		return fmt.Sprintf("%x-%d", sum, parts)
	}
	return hex.EncodeToString(sum)
}

// wrote is shownETag for an object that was just written. It is remembered, as who
// writes an object often asks for it next.
func (s *Service) wrote(b keys.Bucket, key, etag string, sum []byte, parts int) string {
	shown := shownETag(b, etag, sum, parts)
	s.rememberETag(b, key, etag, shown)
	return shown
}

func (s *Service) rememberETag(b keys.Bucket, key, etag, shown string) {
	if b.MD5 && !b.Strict {
		s.etags.Add(etagKey{b.Space, key, etag}, shown)
	}
}

// etag is the visible ETag of an object whose envelope is open. In a bucket with MD5s
// it costs a small request where the trailer has the MD5 and it is not known yet.
func (q *query) etag(f *found) (string, error) {
	b := q.r.Bucket
	if f.plain {
		return plainETag(b, f.info.ETag), nil
	}
	if !b.MD5 {
		return visibleETag(f.info.ETag), nil
	}
	if shown, ok := q.etags.Get(etagKey{b.Space, q.r.Key, f.info.ETag}); ok && !b.Strict {
		return shown, nil
	}
	sum, parts, err := q.md5(f)
	if err != nil {
		return "", err
	}
	shown := shownETag(b, f.info.ETag, sum, parts)
	q.rememberETag(b, q.r.Key, f.info.ETag, shown)
	return shown, nil
}

// md5 is what there is for an object's ETag; nil where there is nothing.
func (q *query) md5(f *found) (sum []byte, parts int, err error) {
	switch {
	case f.env.Kind == sealed.Single && f.env.Attributes.MD5 != nil:
		return f.env.Attributes.MD5, 0, nil
	case !f.env.Attributes.LateMD5:
		return nil, 0, nil
	case f.env.Kind == sealed.Single:
		table, err := q.singleTrailer(f)
		if err != nil {
			return nil, 0, err
		}
		return table.MD5(), 0, nil
	}
	if f.table == nil {
		if err := q.addTable(f); err != nil {
			return nil, 0, err
		}
	}
	return f.table.MD5(), f.table.Len(), nil
}

// check evaluates a read's conditions on visible ETags that the backend does not know.
// Once they hold, all that follows is pinned to the object that was looked at.
func (q *query) check(f *found) error {
	if q.r.Conditions.IsZero() {
		return nil
	}
	etag, err := q.etag(f)
	if err != nil {
		return err
	}
	if err := q.r.Conditions.CheckRead(etag, f.info.Modified); err != nil {
		return err
	}
	q.r.Conditions = backends.Conditions{}
	return nil
}

// getChecked is get with conditions in a bucket with MD5s: it looks at the object
// first. When the object is replaced before its bytes are asked for, it looks again.
func (q *query) getChecked() (*Reader, error) {
	conditions := q.r.Conditions
	for again := 3; ; again-- {
		reader, err := q.part()
		replaced := errors.Is(err, backends.ErrPrecondition) && q.r.Conditions.IsZero()
		if !replaced || again == 0 {
			return reader, err
		}
		q.r.Conditions = conditions
	}
}

// writeConditions are a client's conditions on a write as the backend checks them,
// atomically with it. In a bucket with MD5s, If-Match is held against the object that
// is there; the backend then makes sure that it is still that one.
func (s *Service) writeConditions(ctx context.Context, b keys.Bucket, key, version string, ifMatch, ifNoneMatch []string) (backends.Conditions, error) {
	out := backends.Conditions{IfMatch: backendETags(ifMatch), IfNoneMatch: backendETags(ifNoneMatch)}
	if !b.MD5 || len(ifMatch) == 0 || slices.Contains(ifMatch, "*") {
		return out, nil
	}
	q, err := s.newQuery(ctx, GetRequest{Bucket: b, Key: key, Version: version})
	if err != nil {
		return out, err
	}
	f, err := vouched(q, q.find)
	if err != nil {
		return out, err
	}
	etag, err := q.etag(f)
	if err != nil {
		return out, err
	}
	if !slices.Contains(ifMatch, etag) {
		return out, fmt.Errorf("%w: the object has another ETag", backends.ErrPrecondition)
	}
	out.IfMatch = []string{f.info.ETag}
	return out, nil
}

// fitsMD5 says whether a trailer has room for an MD5 beside a checksum that comes late.
func (a Algorithm) fitsMD5() bool { return a == "" || a.NewHash().Size() <= sealed.MaxBesideMD5 }

// md5ed passes a body on and sums it.
func md5ed(body io.Reader) (io.Reader, func() []byte) {
	h := md5.New() //nolint:gosec // as above
	return &hashing{src: body, h: h}, func() []byte { return h.Sum(nil) }
}

// md5Of is the MD5 of bytes that are at hand.
func md5Of(b []byte) []byte {
	sum := md5.Sum(b) //nolint:gosec // as above
	return sum[:]
}

// hasMD5 says whether an upload's parts are summed: their tokens then carry the MD5
// behind the checksum, if there is one.
func (u *upload) hasMD5() bool {
	return u.Bucket.MD5 && fromSealedAlgorithm(u.stash.Algorithm).fitsMD5()
}

// splitSums takes apart what a token carries: the part's checksum and its MD5.
func (u *upload) splitSums(p sealed.Part) (checksum, sum []byte) {
	at := len(p.Checksum) - md5.Size
	if !u.hasMD5() || at < 0 {
		return p.Checksum, nil
	}
	return p.Checksum[:at:at], p.Checksum[at:]
}

// md5 is the MD5 of the parts' MD5s; nil where that of a part is not known.
func (c *completion) md5() []byte {
	var all []byte
	for _, p := range c.parts {
		_, sum := c.splitSums(p)
		if sum == nil {
			return nil
		}
		all = append(all, sum...)
	}
	return md5Of(all)
}

// showMD5s puts into a page's rows the ETags that reading the objects shows. What is
// not known is looked up, a small request for each object and some at once.
func (r *rows) showMD5s(ctx context.Context, infos []backends.Info, entries []Entry) error {
	if !r.bucket.MD5 {
		return nil
	}
	found := pageKeys{find: r.finder(ctx, r.bucket), known: map[sealed.KeyID]func() (keys.BucketKey, error){}}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(etagReaders)
	for i, info := range infos {
		if info.ETag == "" || r.isPlain(info) { // a delete marker, or what entry has dealt with
			continue
		}
		if shown, ok := r.etags.Get(etagKey{r.bucket.Space, info.Key, info.ETag}); ok && !r.bucket.Strict {
			entries[i].ETag = shown
			continue
		}
		group.Go(func() error {
			shown, err := r.md5ETag(ctx, info, found.key)
			if err == nil {
				entries[i].ETag = shown
			} else if !isOfOneObject(err) {
				return fmt.Errorf("looking at %q: %w", info.Key, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// pageKeys finds each bucket key once for a page, whatever comes of it.
type pageKeys struct {
	find  keyFinder
	mu    sync.Mutex
	known map[sealed.KeyID]func() (keys.BucketKey, error)
}

func (p *pageKeys) key(id sealed.KeyID) (keys.BucketKey, error) {
	p.mu.Lock()
	once, ok := p.known[id]
	if !ok {
		once = sync.OnceValues(func() (keys.BucketKey, error) { return p.find(id) })
		p.known[id] = once
	}
	p.mu.Unlock()
	return once()
}

// isOfOneObject says whether an error is about one object only: it went or was
// replaced meanwhile, is not ours, or its key may not be used. It is then listed by the
// backend's ETag. Anything else ends the page: ETags that are sometimes others would
// make clients believe that objects have changed.
func isOfOneObject(err error) bool {
	return slices.ContainsFunc([]error{
		backends.ErrNotFound, backends.ErrVersionNotFound, backends.ErrDeleteMarker, backends.ErrPrecondition, backends.ErrRange,
		ErrNotSealed, sealed.ErrCorrupt, sealed.ErrUnsupported, keys.ErrBlocked, keys.ErrKeyNotFound,
	}, func(known error) bool { return errors.Is(err, known) })
}

// md5ETag looks up the visible ETag of a row. The end of the object comes with the
// envelope, so that one request has the MD5 wherever it lies.
func (r *rows) md5ETag(ctx context.Context, info backends.Info, key keyFinder) (string, error) {
	store, err := r.storeOf(r.bucket)
	if err != nil {
		return "", err
	}
	q := &query{
		Service: r.Service, ctx: ctx, r: GetRequest{Bucket: r.bucket, Key: info.Key},
		store: store, id: idOf(r.bucket, info.Key, info.Version), key: key,
	}
	if len(info.Attributes.Metadata) > 0 {
		if f, err := q.open(info); err == nil && !f.env.Attributes.LateMD5 {
			return q.etag(f)
		}
	}
	w, err := sealed.TrailerWindow(info.Size)
	if err != nil {
		return "", err
	}
	object, err := q.store.Get(ctx, q.id, &backends.GetOptions{
		Range:      &backends.Range{Offset: w.Offset, Length: w.Length},
		Conditions: backends.Conditions{IfMatch: []string{info.ETag}},
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = object.Body.Close() }()
	f, err := q.open(object.Info)
	if err != nil {
		return "", err
	}
	if f.env.Attributes.LateMD5 {
		if err := q.takeTrailer(f, object, w); err != nil {
			return "", err
		}
	}
	return q.etag(f)
}

// takeTrailer reads the trailer from an answer that has just its window.
func (q *query) takeTrailer(f *found, object *backends.Object, w sealed.Window) error {
	data := make([]byte, w.Length)
	if _, err := io.ReadFull(object.Body, data); err != nil {
		return fmt.Errorf("reading a trailer: %w", err)
	}
	var err error
	if f.env.Kind == sealed.Single {
		f.full, err = q.suite.OpenSingleTrailer(data, f.env, f.info.Size)
	} else {
		f.table, err = q.suite.OpenTrailer(data, f.env.DEK, f.info.Size)
	}
	return err
}
