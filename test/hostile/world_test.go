package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
)

// version is an object as it was once stored: what it reads as, and what lies in the
// cloud.
type version struct {
	plain  []byte
	attrs  objects.Attributes
	sums   []objects.Checksum
	parts  []part // of a multipart object
	stored thing
	// earlier are sealed attempts at the parts, by index, that were done again.
	earlier []rope
	// swapped is what an object reads as whose first part is not bound, when the provider
	// serves the earlier attempt at it (FORMAT.md section 6); nil of all others.
	swapped []byte
}

// part is one part of an object, in plaintext and as stored. The only part of a single
// PUT has the number 0.
type part struct {
	number               int
	plain, length        int64 // offset and size in the plaintext
	sealed, sealedLength int64
}

// subject is a name to attack, with two versions of what is under it.
type subject struct {
	name     string // for reports
	bucket   keys.Bucket
	key      string
	now, old *version
}

func (s *subject) multipart() bool { return s.now.parts[0].number != 0 }

// world is a cloud with objects of every kind, and the keys to them.
type world struct {
	*cloud
	ring     *keystest.Ring
	buckets  map[string]keys.Bucket
	subjects []*subject
	large    []*subject // with more than one part
}

const (
	plainBucket = "photos"
	otherBucket = "films"
	md5Bucket   = "md5-sums"
)

// service is a gateway that has just been started.
func (w *world) service(store backends.Store) (*objects.Service, error) {
	return w.serviceWith(w.ring, store)
}

func (w *world) serviceWith(ring objects.Keyring, store backends.Store) (*objects.Service, error) {
	return objects.New(objects.Config{
		Keys: ring, Stores: map[string]backends.Store{"main": store, "second": unlike{store}}, DefaultStore: "main",
		Prefix: "there-", MD5Buckets: []string{"md5-*"}, Logger: zap.NewNop(),
	})
}

// unlike is a store that copies nothing by itself.
type unlike struct{ backends.Store }

func newWorld(ctx context.Context, v *vault) (*world, error) {
	w := &world{cloud: newCloud(), ring: keystest.New(), buckets: map[string]keys.Bucket{}}
	w.ring.RecordWith(v.record)
	s, err := w.service(w.cloud)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{plainBucket, otherBucket, md5Bucket} {
		if err := s.CreateBucket(ctx, "ann", name); err != nil {
			return nil, err
		}
		if w.buckets[name], err = s.Bucket(ctx, name); err != nil {
			return nil, err
		}
	}
	if err := w.guard(ctx, s); err != nil {
		return nil, err
	}
	m := &maker{world: w, ctx: ctx, s: s}
	for _, bucket := range []string{plainBucket, md5Bucket, otherBucket} {
		m.singles(bucket)
		m.uploads(bucket)
	}
	for _, s := range w.subjects {
		if len(s.now.parts) > 1 {
			w.large = append(w.large, s)
		}
	}
	return w, errors.Join(m.err, w.scatter(ctx))
}

// maker puts objects into a world.
type maker struct {
	*world
	ctx  context.Context
	s    *objects.Service
	from backends.Store // where the objects lie; nil means the world's cloud
	seed uint64
	err  error

	uploadIDs []string // that were begun
}

// noise is text that nothing else in the world has.
func (m *maker) noise(n int64) []byte {
	m.seed++
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(m.seed), byte(m.seed >> 8), 7}).Read(b)
	return b
}

func (m *maker) attributes() objects.Attributes {
	m.seed++
	note := fmt.Sprint("version ", m.seed)
	return objects.Attributes{ContentType: "text/" + fmt.Sprint(m.seed), CacheControl: note, Metadata: map[string]string{"note": note}}
}

// sizes of single PUTs: about the ends of chunks and of batches, and where the checksum
// is in the trailer.
func sizes() []int64 { return []int64{0, 1, 16383, 16384, 16385, 100_000, 300_000, 1<<20 + 5} }

func (m *maker) singles(bucket string) {
	for i, size := range sizes() {
		sub := &subject{name: fmt.Sprint(bucket, "/single of ", size), bucket: m.buckets[bucket], key: fmt.Sprint("single-", size)}
		sub.old = m.put(sub, size, i%2 == 0)
		sub.now = m.put(sub, size, i%2 == 0)
		m.subjects = append(m.subjects, sub)
	}
}

// put stores a body; a late checksum is in the trailer where the body is large.
func (m *maker) put(sub *subject, size int64, late bool) *version {
	v := &version{plain: m.noise(size), attrs: m.attributes(), parts: []part{{length: size, sealedLength: sealed.MessageSize(size)}}}
	sum := objects.Checksum{Algorithm: objects.SHA256, Value: sumOf(objects.SHA256, v.plain)}
	r := objects.PutRequest{Bucket: sub.bucket, Key: sub.key, Body: bytes.NewReader(v.plain), Size: size, Attributes: v.attrs}
	if late {
		r.Late, r.LateValue = sum.Algorithm, func() []byte { return sum.Value }
	} else {
		r.Checksums = []objects.Checksum{sum}
	}
	v.sums = []objects.Checksum{sum}
	if _, err := m.s.Put(m.ctx, r); err != nil && m.err == nil {
		m.err = fmt.Errorf("making %s: %w", sub.name, err)
	}
	m.stored(sub, v)
	return v
}

func sumOf(a objects.Algorithm, b []byte) []byte {
	h := a.NewHash()
	h.Write(b)
	return h.Sum(nil)
}

func (m *maker) stored(sub *subject, v *version) {
	id := backends.ObjectID{Bucket: sub.bucket.StoreName, Key: sub.key}
	look := m.look
	if m.from != nil {
		look = func(ctx context.Context, id backends.ObjectID) (thing, error) { return readThing(ctx, m.from, id) }
	}
	o, err := look(m.ctx, id)
	if err != nil && m.err == nil {
		m.err = fmt.Errorf("looking at %s: %w", sub.name, err)
	}
	v.stored = o
}

const large = sealed.MinPartSize

func (m *maker) uploads(bucket string) {
	shapes := []struct {
		name    string
		numbers []int
		lengths []int64
		unbound bool
	}{
		{"one small part", []int{3}, []int64{20_000}, false},
		{"an empty part", []int{1}, []int64{0}, false},
		{"two parts", []int{1, 2}, []int64{large, 40_000}, false},
		{"three parts", []int{2, 5, 9999}, []int64{large, large, 20_000}, false},
		{"unbound parts", []int{1, 2}, []int64{large, 30_000}, true},
	}
	if bucket == otherBucket {
		shapes = shapes[:3]
	}
	for _, shape := range shapes {
		sub := &subject{name: bucket + "/" + shape.name, bucket: m.buckets[bucket], key: shape.name}
		for _, v := range []**version{&sub.old, &sub.now} {
			*v = m.upload(sub, shape.numbers, shape.lengths, shape.unbound)
		}
		m.subjects = append(m.subjects, sub)
	}
}

// upload puts an object together from parts, each sent twice.
func (m *maker) upload(sub *subject, numbers []int, lengths []int64, unbound bool) *version {
	v := &version{attrs: m.attributes()}
	u, err := m.s.CreateUpload(m.ctx, objects.CreateUploadRequest{Bucket: sub.bucket, Key: sub.key, Attributes: v.attrs})
	if err != nil {
		m.err = err
		return v
	}
	m.uploadIDs = append(m.uploadIDs, u.ID)
	var sealedAt int64
	var list []objects.CompletePart
	for i, length := range lengths {
		earlier := m.noise(length)
		m.part(u, numbers[i], earlier)
		body := m.noise(length)
		etag := m.part(u, numbers[i], body)
		if unbound {
			etag = m.backendETag(u, numbers[i])
		}
		size := sealed.MessageSize(length)
		v.parts = append(v.parts, part{numbers[i], int64(len(v.plain)), length, sealedAt, size})
		v.plain, sealedAt = append(v.plain, body...), sealedAt+size
		if unbound && i > 0 {
			earlier = body
		}
		if unbound {
			v.swapped = append(v.swapped, earlier...)
		}
		list = append(list, objects.CompletePart{Number: numbers[i], ETag: etag})
		v.earlier = append(v.earlier, m.attempt(u, numbers[i]))
	}
	done, err := m.s.Complete(m.ctx, objects.CompleteRequest{UploadRef: u, Parts: list, Size: -1})
	if err != nil && m.err == nil {
		m.err = fmt.Errorf("making %s: %w", sub.name, err)
	}
	if done.Checksum != nil {
		v.sums = []objects.Checksum{*done.Checksum}
	}
	m.stored(sub, v)
	return v
}

func (m *maker) part(u objects.UploadRef, number int, body []byte) (etag string) {
	r, err := m.s.PutPart(m.ctx, objects.PutPartRequest{UploadRef: u, Number: number, Body: bytes.NewReader(body), Size: int64(len(body))})
	if err != nil && m.err == nil {
		m.err = fmt.Errorf("putting part %d: %w", number, err)
	}
	return r.ETag
}

// attempt is the first attempt at a part; nil of one that was staged.
func (m *maker) attempt(u objects.UploadRef, number int) rope {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.attempts[attemptKey(u.ID, number)]
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// backendETag is what a client knows of a part that asks the backend itself, after its
// token was lost.
func (m *maker) backendETag(u objects.UploadRef, number int) string {
	name := fmt.Sprintf("%s%05d", sealed.StashDir(u.ID), number)
	m.forget(u, name+".")
	page, err := m.ListParts(m.ctx, backends.UploadID{Bucket: u.Bucket.StoreName, Key: u.Key, ID: u.ID}, 0, 0)
	if err != nil {
		m.err = err
		return ""
	}
	for _, p := range page.Parts {
		if p.Number == number {
			return p.ETag + "-1"
		}
	}
	info, err := m.Head(m.ctx, backends.ObjectID{Bucket: u.Bucket.StoreName, Key: name}, nil)
	if err != nil {
		m.err = err
	}
	return info.ETag + "-1"
}

// forget removes what lies beside an upload under a prefix.
func (m *maker) forget(u objects.UploadRef, prefix string) {
	page, err := m.List(m.ctx, u.Bucket.StoreName, &backends.ListOptions{Prefix: prefix})
	if err != nil {
		m.err = err
		return
	}
	for _, e := range page.Entries {
		if _, err := m.Delete(m.ctx, backends.ObjectID{Bucket: u.Bucket.StoreName, Key: e.Key}, nil); err != nil {
			m.err = err
		}
	}
}
