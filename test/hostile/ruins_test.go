package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/google/uuid"

	"chatelaine/backends"
	"chatelaine/gateway/breakglass"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
	"chatelaine/kms"
)

// madeKey is a key of the world.
type madeKey struct{ mirror, raw []byte }

// record is the mirror of a key of the world, under the vault's KEK.
func (v *vault) record(space keys.Space, id [16]byte, raw []byte) []byte {
	m := kms.Mirror{ID: id, Space: uuid.UUID(space).String(), Epoch: 1, KEK: "main", KEKVersion: 1}
	binding := kms.Binding{Purpose: "bucket-key", Space: m.Space, ID: m.ID.String()}
	var err error
	if m.Wrapped, err = v.provider.Wrap(context.Background(), kms.KeyRef{Name: m.KEK, Version: m.KEKVersion}, binding, raw); err != nil {
		panic(err)
	}
	out, err := json.Marshal(struct {
		Chatelaine string `json:"chatelaine"`
		kms.Mirror
	}{"bucket-key/1", m})
	if err != nil {
		panic(err)
	}
	v.made.Store(id, madeKey{out, raw})
	return out
}

// scatter copies each bucket's mirrors into all buckets, as a provider can: no key is
// missing to whoever takes one object for another.
func (w *world) scatter(ctx context.Context) error {
	for _, from := range w.buckets {
		page, err := w.List(ctx, from.StoreName, &backends.ListOptions{Prefix: objects.MirrorPrefix})
		if err != nil {
			return err
		}
		for _, to := range w.buckets {
			for _, e := range page.Entries {
				if _, err := w.Copy(ctx, backends.ObjectID{Bucket: from.StoreName, Key: e.Key}, backends.ObjectID{Bucket: to.StoreName, Key: e.Key}, &backends.CopyOptions{}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ruins is what reads when there is no gateway any more. The space is known: without, a
// provider that has copied a bucket's keys may show that one's objects (DECISIONS.md of
// gateway/breakglass).
func (t *trial) ruins(source breakglass.Source) breakglass.Reader {
	return breakglass.Reader{Source: source, Keys: breakglass.NewKeys(breakglass.KeysConfig{
		Mirrors: breakglass.BesideObjects(source, t.s.bucket.StoreName), Providers: []kms.Provider{t.vault.provider},
		Space: uuid.UUID(t.s.bucket.Space).String(),
	})}
}

func (t *trial) id() backends.ObjectID {
	return backends.ObjectID{Bucket: t.s.bucket.StoreName, Key: t.s.key}
}

// ruinPaths are those without a gateway.
func ruinPaths() []path {
	return []path{
		{"break-glass open", (*trial).openRuin},
		{"break-glass inspect", (*trial).inspectRuin},
		{"break-glass verify", (*trial).verifyRuin},
	}
}

func (t *trial) openRuin() verdict {
	o, err := t.ruins(t.view).Open(t.ctx, t.id())
	if err != nil {
		return verdict{outcome: refused}
	}
	var body bytes.Buffer
	_, err = o.WriteTo(&body)
	if closing := o.Close(); closing != nil {
		return lie("closing: %v", closing)
	}
	return t.judge(all, ruinStat(o.Envelope, o.Table), objects.Span{Length: o.Table.Length()}, body.Bytes(), err)
}

// inspectRuin reads nothing but what is said of the object.
func (t *trial) inspectRuin() verdict {
	d, err := t.ruins(t.view).Inspect(t.ctx, t.id())
	if err != nil {
		return verdict{outcome: refused}
	}
	v := t.judge(all, ruinStat(d.Envelope, d.Table), objects.Span{Length: d.Table.Length()}, nil, errUnread)
	if v.outcome == cut {
		v.outcome = truthful
	}
	return v
}

// ruinStat is what an envelope and a table say.
func ruinStat(e sealed.Envelope, table *sealed.Table) objects.Stat {
	a := e.Attributes
	st := objects.Stat{Size: table.Length(), Attributes: objects.Attributes{ContentType: a.ContentType, CacheControl: a.CacheControl, Metadata: map[string]string{}}}
	for _, p := range a.UserMetadata {
		st.Metadata[p.Name] = p.Value
	}
	if e.Kind == sealed.Multipart {
		st.Parts = table.Len()
	}
	return st
}

// witness keeps what was read of the one object whose whole body was asked for.
type witness struct {
	breakglass.Source
	id backends.ObjectID

	mu     sync.Mutex
	header string
	body   *bytes.Buffer
}

// Get implements breakglass.Source.
func (w *witness) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	o, err := w.Source.Get(ctx, id, opts)
	if err != nil || id != w.id || opts != nil {
		return o, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.header, w.body = o.Attributes.Metadata[sealed.MetadataName], &bytes.Buffer{}
	o.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(o.Body, w.body), o.Body}
	return o, nil
}

// verifyRuin verifies the objects whose names begin with the subject's. What it calls good
// must have been served as it was stored.
func (t *trial) verifyRuin() verdict {
	saw := &witness{Source: t.view, id: t.id()}
	var before uint64
	var seen, good bool
	v := breakglass.Verification{
		Reader: t.ruins(saw), Store: t.view, Bucket: t.s.bucket.StoreName, Prefix: t.s.key, Workers: 1,
		Observe: func(r breakglass.Report) {
			if r.After.Key == t.s.key {
				seen, good = true, r.Good > before
			}
			before = r.Good
		},
	}
	report, err := v.Verify(t.ctx, breakglass.Report{})
	switch {
	case err == nil && !report.Done:
		return lie("it ends well before it is done")
	case !seen && err == nil:
		return lie("it is done and has left the object out")
	case !good && err == nil && t.view.struck.Load() == 0:
		return lie("a true object is called bad: %+v", report.Bad)
	case !good:
		return verdict{outcome: refused}
	}
	for _, version := range t.allowed() {
		if version.stored.envelope() == saw.header && version.isStoredAs(saw.body.Bytes()) {
			return verdict{outcome: map[bool]outcome{true: truthful, false: known}[version == t.s.now]}
		}
	}
	if t.kind.name == "part of an earlier attempt" && t.s.now.swapped != nil {
		return verdict{outcome: known}
	}
	return lie("an object is called good that was served in %d bytes which are not those stored", saw.body.Len())
}

// isStoredAs compares all that means something: a filler does not.
func (v *version) isStoredAs(b []byte) bool {
	zeros, trailer, _ := v.trailer()
	stored := v.stored.bytes.bytes()
	return len(b) >= len(stored) && bytes.Equal(b[:zeros], stored[:zeros]) && bytes.Equal(b[trailer:len(stored)], stored[trailer:])
}

// keptMirrors are attacks on the mirror that lies beside an object when all else is lost.
func keptMirrors() []kind {
	meddled := func(name string, change func(g *gen, record []byte) (string, []byte)) kind {
		return kind{name: "break-glass: mirror " + name, over: func(t *trial) (string, verdict) {
			ways := ruinPaths()
			p := ways[t.IntN(len(ways))]
			id, err := sealed.EnvelopeKeyID(t.s.now.stored.envelope())
			if err != nil {
				return p.name, lie("%v", err)
			}
			mirror := backends.ObjectID{Bucket: t.s.bucket.StoreName, Key: objects.MirrorPrefix + kms.KeyID(id).String()}
			o, err := t.view.look(t.ctx, mirror)
			if err != nil {
				return p.name, lie("looking at a mirror: %v", err)
			}
			detail, record := change(t.gen, o.bytes.bytes())
			t.view.target = mirror
			t.view.arm(&attack{first: 1, thing: func(o *thing) { o.bytes = rope{record}; o.resize() }})
			defer t.view.armed.Store(false)
			v := p.run(t)
			if v.outcome == wrong {
				v.why = fmt.Sprintf("mirror %s (%s): %s", name, detail, v.why)
			}
			return p.name, v
		}}
	}
	return []kind{
		meddled("flipped", func(g *gen, record []byte) (string, []byte) {
			at := g.within(int64(len(record)))
			return fmt.Sprint("byte ", at), rope{record}.flip(at, g.mask()).bytes()
		}),
		meddled("cut or extended", func(g *gen, record []byte) (string, []byte) {
			if at := g.IntN(len(record)); g.IntN(2) == 0 {
				return "cut", record[:at]
			}
			return "extended", append(bytes.Clone(record), record[g.IntN(len(record)):]...)
		}),
		meddled("of another bucket", func(g *gen, _ []byte) (string, []byte) {
			o := g.elsewhere()
			id, err := sealed.EnvelopeKeyID(o.now.stored.envelope())
			if err != nil {
				panic(err)
			}
			found, err := g.w.look(context.Background(), backends.ObjectID{Bucket: o.bucket.StoreName, Key: objects.MirrorPrefix + kms.KeyID(id).String()})
			if err != nil {
				panic(err)
			}
			return o.bucket.Name, found.bytes.bytes()
		}),
		meddled("reworded", func(g *gen, record []byte) (string, []byte) {
			var id kms.KeyID
			id[g.IntN(16)] = g.mask()
			out := reworded(g, record, id.String(), uuid.UUID(g.elsewhere().bucket.Space).String())
			return string(out), out
		}),
	}
}
