package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
)

// thing is an object as a provider says that it lies there.
type thing struct {
	info  backends.Info
	bytes rope
}

// envelope is the header that the gateway keeps its secrets in.
func (o *thing) envelope() string { return o.info.Attributes.Metadata["cho1"] }

func (o *thing) setEnvelope(header string) {
	o.info.Attributes.Metadata = map[string]string{"cho1": header}
}

// resize makes the claimed size that of the bytes.
func (o *thing) resize() { o.info.Size = o.bytes.size() }

// reply is how a provider answers one Get.
type reply struct {
	info   backends.Info
	asked  backends.Range // what was asked for, of what lies there
	said   backends.Range // what the answer says that it has
	body   rope
	wanted *backends.Range // as it was asked for; nil: all
	pins   []string        // the ETags that were asked for; none: any
	slow   bool            // a byte or nothing at a time
	fail   error           // comes behind the body instead of io.EOF
	err    error           // comes instead of the answer
}

// attack is what a provider does to one name. The zero value does nothing.
type attack struct {
	detail string
	// instead is what is shown in the place of what lies there, or is not; nil: that.
	// Lists do not show it.
	instead func(thing, error) (thing, error)
	thing   func(*thing)
	reply   func(*reply)
	list    func(*backends.Page)
	parts   func(*backends.PartsPage)
	// first and last are the calls on the name that it is done to, counted from 1; a last
	// of 0 means all that follow.
	first, last int
	// honest conditions are evaluated against the ETag that the provider claims.
	honest bool
}

func (a *attack) strikes(call int) bool { return call >= a.first && (a.last == 0 || call <= a.last) }

// cloud is a store that keeps what it is given and remembers more than it should: all
// attempts at parts, and what lay under a name before.
type cloud struct {
	*memstore.Store
	mu       sync.Mutex
	attempts map[string][]rope // bodies of PutPart, by upload and number
	things   map[string]thing
}

func newCloud() *cloud {
	return &cloud{Store: memstore.New(), attempts: map[string][]rope{}, things: map[string]thing{}}
}

func attemptKey(upload string, number int) string { return fmt.Sprint(upload, "/", number) }

// PutPart keeps a copy.
func (c *cloud) PutPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	kept := &keeping{src: body.Reader}
	part, err := c.Store.PutPart(ctx, id, number, backends.Body{Reader: kept, Size: body.Size})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts[attemptKey(id.ID, number)] = append(c.attempts[attemptKey(id.ID, number)], rope{kept.all})
	return part, err
}

type keeping struct {
	src io.Reader
	all []byte
}

func (k *keeping) Read(p []byte) (int, error) {
	n, err := k.src.Read(p)
	k.all = append(k.all, p[:n]...)
	return n, err
}

// look reads all of an object, and keeps it in mind for as long as it has that ETag.
func (c *cloud) look(ctx context.Context, id backends.ObjectID) (thing, error) {
	info, err := c.Store.Head(ctx, id, nil)
	if err != nil {
		return thing{}, err
	}
	name := id.Bucket + "/" + id.Key
	c.mu.Lock()
	known, ok := c.things[name]
	c.mu.Unlock()
	if ok && known.info.ETag == info.ETag {
		return known, nil
	}
	found, err := readThing(ctx, c.Store, id)
	if err != nil {
		return thing{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.things[name] = found
	return found, nil
}

// readThing reads all of an object.
func readThing(ctx context.Context, store backends.Store, id backends.ObjectID) (thing, error) {
	object, err := store.Get(ctx, id, nil)
	if err != nil {
		return thing{}, err
	}
	defer object.Body.Close()
	data, err := io.ReadAll(object.Body)
	return thing{object.Info, rope{data}}, err
}

// view is a cloud that attacks one name, until it is calmed.
type view struct {
	*cloud
	target backends.ObjectID // the bucket at the backend, and the key; an empty key means all keys
	attack *attack
	armed  atomic.Bool
	calls  atomic.Int64
	struck atomic.Int64

	// told are the answers about the target, true ones too, where witnessed.
	witnessed bool
	telling   sync.Mutex
	told      []reply
}

// tell keeps an answer in mind.
func (v *view) tell(id backends.ObjectID, r reply) {
	if !v.witnessed || id != v.target {
		return
	}
	v.telling.Lock()
	defer v.telling.Unlock()
	v.told = append(v.told, r)
}

func (v *view) strike(id backends.ObjectID) bool {
	if !v.armed.Load() || id.Bucket != v.target.Bucket || (v.target.Key != "" && id.Key != v.target.Key) {
		return false
	}
	hit := v.attack.strikes(int(v.calls.Add(1)))
	if hit {
		v.struck.Add(1)
	}
	return hit
}

// changed is what the provider says that lies there.
func (v *view) changed(ctx context.Context, id backends.ObjectID, c backends.Conditions) (thing, error) {
	o, err := v.look(ctx, id)
	if v.attack.instead != nil {
		o, err = v.attack.instead(o, err)
	}
	if err != nil {
		return thing{}, err
	}
	o.info.Attributes.Metadata = maps.Clone(o.info.Attributes.Metadata)
	if v.attack.thing != nil {
		v.attack.thing(&o)
	}
	if v.attack.honest {
		err = c.CheckRead(o.info.ETag, o.info.Modified)
	}
	return o, err
}

// seen is what lies there, or what the provider says of it.
func (v *view) seen(ctx context.Context, id backends.ObjectID, c backends.Conditions, hit bool) (thing, error) {
	if hit {
		return v.changed(ctx, id, c)
	}
	o, err := v.look(ctx, id)
	if err == nil {
		err = c.CheckRead(o.info.ETag, o.info.Modified)
	}
	return o, err
}

// Get answers as the attack says.
func (v *view) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	hit := v.strike(id)
	if !hit && !v.witnessed {
		return v.Store.Get(ctx, id, opts)
	}
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	o, err := v.seen(ctx, id, opts.Conditions, hit)
	if err != nil {
		return nil, err
	}
	asked, err := opts.Range.Clip(o.bytes.size())
	if err != nil {
		return nil, err
	}
	r := &reply{info: o.info, asked: asked, said: asked, body: o.bytes.cut(asked.Offset, asked.Length)}
	r.wanted, r.pins = opts.Range, opts.Conditions.IfMatch
	if hit && v.attack.reply != nil {
		v.attack.reply(r)
	}
	if r.err != nil {
		return nil, r.err
	}
	v.tell(id, *r)
	return &backends.Object{Info: r.info, Range: r.said, Body: &answer{src: r.body.reader(), slow: r.slow, fail: r.fail}}, nil
}

// Head answers with what lies there.
func (v *view) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	hit := v.strike(id)
	if !hit && !v.witnessed {
		return v.Store.Head(ctx, id, opts)
	}
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	o, err := v.seen(ctx, id, opts.Conditions, hit)
	if err != nil {
		return backends.Info{}, err
	}
	r := &reply{info: o.info}
	if hit && v.attack.reply != nil {
		v.attack.reply(r)
	}
	if r.err == nil {
		v.tell(id, *r)
	}
	return r.info, r.err
}

// List shows what lies there, with its metadata.
func (v *view) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	page, err := v.Store.List(ctx, bucket, opts)
	if err != nil || !v.armed.Load() || bucket != v.target.Bucket {
		return page, err
	}
	for i, e := range page.Entries {
		if v.attack.thing == nil || e.Key != v.target.Key {
			continue
		}
		v.struck.Add(1)
		o, err := v.changed(ctx, backends.ObjectID{Bucket: bucket, Key: e.Key}, backends.Conditions{})
		if err != nil {
			return nil, err
		}
		page.Entries[i] = o.info
		page.Entries[i].Key = e.Key
	}
	if v.attack.list != nil {
		v.struck.Add(1)
		v.attack.list(page)
	}
	return page, nil
}

// ListParts shows the parts of an upload.
func (v *view) ListParts(ctx context.Context, id backends.UploadID, after, limit int) (*backends.PartsPage, error) {
	page, err := v.Store.ListParts(ctx, id, after, limit)
	if err == nil && v.armed.Load() && v.attack.parts != nil {
		v.struck.Add(1)
		v.attack.parts(page)
	}
	return page, err
}

// Copy copies what the provider says that lies there: it is not the source.
func (v *view) Copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	if !v.strike(src) {
		return v.Store.Copy(ctx, src, dst, opts)
	}
	o, err := v.changed(ctx, src, backends.Conditions{})
	if err != nil {
		return backends.Written{}, err
	}
	body := backends.Body{Reader: o.bytes.reader(), Size: o.bytes.size()}
	return v.Store.Put(ctx, dst, body, &backends.PutOptions{Attributes: opts.Attributes, Conditions: opts.Conditions})
}

// answer is the body of a reply.
type answer struct {
	src  io.Reader
	slow bool
	odd  int
	fail error
}

func (a *answer) Read(p []byte) (int, error) {
	if a.slow && len(p) > 0 {
		if a.odd++; a.odd%3 == 0 {
			return 0, nil
		}
		p = p[:min(len(p), 1+a.odd%701)]
	}
	n, err := a.src.Read(p)
	if errors.Is(err, io.EOF) && a.fail != nil {
		return n, a.fail
	}
	return n, err
}

func (*answer) Close() error { return nil }
