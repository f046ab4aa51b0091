package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
)

// standing is how an object stands in a bucket that is being adopted.
type standing int

const (
	plainAbove  standing = iota // as it was before, and not sealed yet
	plainBelow                  // put back by the provider where all was sealed
	plainLate                   // put there by another way after the cut-off
	sealedAbove                 // written through the gateway, where plaintext may still be
	sealedBelow                 // sealed, where all was
	standings
)

// below: no plaintext is believed there, whatever the provider says of its age.
func (s standing) below() bool { return s == plainBelow || s == sealedBelow }

// forbidden: nothing that lies there may leave the gateway.
func (s standing) forbidden() bool { return s == plainBelow || s == plainLate }

func (s standing) sealed() bool { return s == sealedAbove || s == sealedBelow }

func (s standing) String() string {
	return [...]string{"plaintext above the cursor", "plaintext below the cursor", "plaintext from after the cut-off", "sealed above the cursor", "sealed below the cursor"}[s]
}

// adoptee is a bucket that is being adopted, with one object.
type adoptee struct {
	state  standing
	view   *view
	ring   *adoptionRing
	cutOff time.Time
	work   keys.Adoption
}

// adoptionRing says when a run of an adoption has ended.
type adoptionRing struct {
	*keystest.Ring
	once  sync.Once
	ended chan struct{}
}

// Adopt implements objects.Keyring.
func (r *adoptionRing) Adopt(ctx context.Context, p keys.AdoptionProgress) (keys.Adoption, error) {
	a, err := r.Ring.Adopt(ctx, p)
	if p.Ended || p.Trouble != "" || p.Refused != "" {
		r.once.Do(func() { close(r.ended) })
	}
	return a, err
}

const (
	adopted = "adopted"
	oldData = "old-data"
)

// adopt makes a trial on a bucket of its own that is being adopted.
func (t *trial) adopt(k kind) (*trial, error) {
	a := &adoptee{
		state: standing(t.IntN(int(standings))), view: &view{cloud: newCloud(), attack: &attack{}, witnessed: true},
		ring: &adoptionRing{Ring: keystest.New(), ended: make(chan struct{})},
	}
	if t.IntN(2) == 0 {
		a.state = plainAbove
	}
	out := &trial{ctx: t.ctx, kind: k, view: a.view, adoptee: a}
	var err error
	if out.service, err = a.service(a.view); err != nil {
		return nil, err
	}
	a.work.Bucket = a.ring.AddAdoption(keys.NewBucket{Name: adopted, Store: "main", StoreName: oldData, Owner: "ann", MD5: t.IntN(2) == 0}, keys.Adoption{})
	sub := &subject{name: a.state.String(), bucket: a.work.Bucket, key: "m"}
	g := *t.gen
	g.s, out.gen = sub, &g
	return out, a.fill(t.ctx, out)
}

func (a *adoptee) service(store backends.Store) (*objects.Service, error) {
	return objects.New(objects.Config{
		Keys: a.ring, Stores: map[string]backends.Store{"main": store, "second": unlike{store}}, DefaultStore: "main", Logger: zap.NewNop(),
	})
}

// fill puts two versions of the object there, and begins the adoption before, between or
// behind them.
func (a *adoptee) fill(ctx context.Context, t *trial) error {
	if err := a.view.CreateBucket(ctx, oldData); err != nil {
		return err
	}
	m := &maker{world: &world{cloud: a.view.cloud}, ctx: ctx, s: t.service, seed: t.Uint64() >> 32}
	size := []int64{0, 1, 700, 20_000, 300_000}[t.IntN(5)]
	foreign := func() *version { return a.foreign(m, t.s, size+t.near(100)) }
	put := func() *version { return m.put(t.s, size+t.near(100), t.IntN(2) == 0) }
	switch {
	case a.state.sealed():
		a.begin(ctx, m)
		t.s.bucket = a.bucket(ctx, m)
		t.s.old, t.s.now = put(), put()
	case a.state == plainLate:
		t.s.old = foreign()
		a.begin(ctx, m)
		t.s.now = foreign()
	default:
		t.s.old, t.s.now = foreign(), foreign()
		a.begin(ctx, m)
	}
	t.s.bucket = a.bucket(ctx, m)
	return m.err
}

// foreign puts plaintext there, past the gateway.
func (a *adoptee) foreign(m *maker, s *subject, size int64) *version {
	v := &version{plain: m.noise(size), attrs: m.attributes(), parts: []part{{length: size, sealedLength: size}}}
	v.attrs.CacheControl = ""
	for _, algorithm := range []objects.Algorithm{objects.CRC64NVME, objects.SHA512} { // what may be computed of it
		v.sums = append(v.sums, objects.Checksum{Algorithm: algorithm, Value: sumOf(algorithm, v.plain)})
	}
	opts := &backends.PutOptions{Attributes: backends.Attributes{ContentType: v.attrs.ContentType, Metadata: v.attrs.Metadata}}
	body := backends.Body{Reader: bytes.NewReader(v.plain), Size: size}
	if _, err := m.Put(m.ctx, backends.ObjectID{Bucket: oldData, Key: s.key}, body, opts); err != nil {
		m.err = err
	}
	m.stored(s, v)
	return v
}

// begin settles the cut-off, and where the cursor is.
func (a *adoptee) begin(ctx context.Context, m *maker) {
	const runner = "a gateway before"
	told := keys.AdoptionProgress{Bucket: a.work.Bucket, Runner: runner}
	_, err := a.ring.Ring.Adopt(ctx, told)
	for a.cutOff = time.Now(); !time.Now().After(a.cutOff); { // what is written from here is newer
	}
	err = errors.Join(err, a.ring.BeginAdoption(ctx, a.work.Bucket, runner, a.cutOff))
	if a.state.below() {
		told.State = &keys.AdoptionState{Position: "z", SealedTo: "z"}
		_, told := a.ring.Ring.Adopt(ctx, told)
		err = errors.Join(err, told)
	}
	a.ring.TakeAdoption(adopted, "")
	m.err = errors.Join(m.err, err)
}

func (a *adoptee) bucket(ctx context.Context, m *maker) keys.Bucket {
	b, err := a.ring.Bucket(ctx, adopted)
	m.err = errors.Join(m.err, err)
	return b
}

// mayBe says whether what was read is what a provider has said that the plaintext is: in
// one answer that is as it was asked for, does not contradict itself and is of an object
// from before the cut-off. Nobody can tell that from the truth.
func (a *adoptee) mayBe(st objects.Stat, body []byte, err error) bool {
	return !a.state.below() && slices.ContainsFunc(a.view.told, func(r reply) bool {
		_, enveloped := r.info.Attributes.Metadata[sealed.MetadataName]
		switch {
		case enveloped || r.info.Modified.After(a.cutOff):
			return false
		case errors.Is(err, errUnread):
			return st.Size == r.info.Size
		case err != nil:
			return bytes.HasPrefix(r.body.bytes(), body)
		}
		return r.holds() && (st.Size < 0 || st.Size == r.info.Size) && bytes.Equal(r.body.cut(0, r.said.Length).bytes(), body)
	})
}

// holds says whether an answer is what was asked for, and what it says that it is. A body
// that goes on behind its range is none of a driver's, and is not read on.
func (r reply) holds() bool {
	pinned := len(r.pins) == 0 || slices.Contains(r.pins, r.info.ETag)
	asked, err := r.wanted.Clip(r.info.Size)
	return err == nil && pinned && r.said == asked && r.body.size() >= r.said.Length && r.said.Offset+r.said.Length <= r.info.Size
}

// seals runs the adoption while the provider lies, and reads what has become of the
// object when it is honest again.
func (a *adoptee) seals(t *trial) verdict {
	id := backends.ObjectID{Bucket: oldData, Key: t.s.key}
	a.run(t)
	a.view.armed.Store(false)
	info, err := a.view.Store.Head(t.ctx, id, nil)
	if err != nil {
		return lie("the object is gone: %v", err)
	}
	if info.ETag == t.s.now.stored.info.ETag {
		return verdict{outcome: refused} // it was left alone
	}
	reader, err := t.service.Get(t.ctx, objects.GetRequest{Bucket: a.work.Bucket, Key: t.s.key, Checksums: true}) // sealed alone
	if err != nil {
		return lie("what was sealed does not open: %v", err)
	}
	var body bytes.Buffer
	_, err = reader.WriteTo(&body)
	_ = reader.Close()
	if err != nil {
		return lie("what was sealed does not open: %v", err)
	}
	return t.judge(all, reader.Stat, reader.Span, body.Bytes(), nil)
}

// run has one run of the adoption made.
func (a *adoptee) run(t *trial) {
	a.ring.Ask(keys.Work{Adoptions: []keys.Adoption{a.work}})
	ctx, cancel := context.WithCancel(t.ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = t.service.Run(ctx) }) // until it is ended
	select {
	case <-a.ring.ended:
	case <-ctx.Done():
	}
	cancel()
	running.Wait()
}

// adoptionPaths are those on which plaintext leaves the gateway, or is sealed.
func adoptionPaths() []path {
	ways := slices.DeleteFunc(paths(), func(p path) bool {
		return !slices.Contains([]string{
			"GET", "GET range", "GET part", "GET if match", "HEAD", "HEAD checksums", "LIST",
			"copy by the backend", "copy to another backend", "copy sealed again", "UploadPartCopy",
		}, p.name)
	})
	seals := path{"sealing", func(t *trial) verdict { return t.adoptee.seals(t) }}
	return append(ways, seals, seals, seals)
}

// adoptions are attacks on a bucket that is being adopted.
func adoptions() []kind {
	base := slices.DeleteFunc(things(), func(k kind) bool {
		return !slices.Contains([]string{
			"flipped: anywhere", "cut: end", "cut: beginning", "cut: middle", "extended", "size lied about", "ETag lied about",
			"metadata stripped", "metadata swapped", "metadata replaced by text", "plaintext served", "another object whole",
			"bytes of another object", "version before, whole",
		}, k.name)
	})
	var out []kind
	for _, k := range slices.Concat(base, answers(), ages()) {
		out = append(out, whileAdopting(k))
	}
	return out
}

// whileAdopting has an attack done to a bucket that is being adopted.
func whileAdopting(k kind) kind {
	return kind{name: "adopting: " + k.name, over: func(t *trial) (string, verdict) {
		ways := adoptionPaths()
		p := ways[t.IntN(len(ways))]
		inner, err := t.adopt(k)
		if err != nil {
			return p.name, lie("making a bucket that is being adopted: %v", err)
		}
		v := inner.attack(p)
		t.view.struck.Store(inner.view.struck.Load())
		if v.outcome == wrong {
			v.why = fmt.Sprintf("%s of %d bytes: %s", inner.s.name, len(inner.s.now.plain), v.why)
		}
		return "adopting: " + p.name, v
	}}
}

// ages are lies about what is from before the cut-off: it is all that keeps plaintext from
// being believed, above the cursor.
func ages() []kind {
	aged := func(name string, by time.Duration, change func(g *gen) func(*thing)) kind {
		return kind{name: name, make: func(g *gen) *attack {
			f := change(g)
			return &attack{thing: func(o *thing) {
				f(o)
				o.info.Modified = o.info.Modified.Add(by)
			}}
		}}
	}
	return []kind{
		aged("called older, stripped", -time.Hour, func(*gen) func(*thing) {
			return func(o *thing) { o.info.Attributes.Metadata = nil }
		}),
		aged("called older, plaintext", -time.Hour, func(g *gen) func(*thing) {
			plain := g.s.old.plain
			return func(o *thing) {
				o.info.Attributes.Metadata, o.bytes = nil, rope{plain}
				o.resize()
			}
		}),
		aged("called newer, stripped", time.Hour, func(*gen) func(*thing) {
			return func(o *thing) { o.info.Attributes.Metadata = nil }
		}),
	}
}
