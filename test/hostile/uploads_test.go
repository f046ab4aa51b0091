package hostile

import (
	"bytes"
	"fmt"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
)

// resumed is an upload that one gateway has begun and another goes on with, from what
// lies in the cloud: stash, staged parts, tokens and the backend's list of parts.
type resumed struct {
	*trial
	ref   objects.UploadRef
	plain []byte
	etags []string
	sizes []int64
}

func (u *resumed) stash() string { return sealed.StashDir(u.ref.ID) + "key" }
func (u *resumed) staged() string {
	return fmt.Sprintf("%s%05d", sealed.StashDir(u.ref.ID), len(u.etags))
}

// begin sends the parts, the last of which is too small for the backend, that one twice.
func (t *trial) begin(sizes ...int64) (*resumed, error) {
	u := &resumed{trial: t, sizes: sizes}
	var err error
	u.ref, err = t.service.CreateUpload(t.ctx, objects.CreateUploadRequest{Bucket: t.s.bucket, Key: fmt.Sprintf("uploads/%d", t.Uint64())})
	for i, size := range sizes {
		for attempt := range 2 {
			if attempt > 0 && size >= sealed.MinPartSize {
				continue // it takes long
			}
			body := make([]byte, size)
			for at := 0; at < len(body); at += 97 {
				body[at] = byte(t.Uint64())
			}
			if err == nil {
				var p objects.PartResult
				p, err = t.service.PutPart(t.ctx, objects.PutPartRequest{UploadRef: u.ref, Number: i + 1, Body: bytes.NewReader(body), Size: size})
				u.etags = append(u.etags[:i], p.ETag)
			}
			u.plain = append(u.plain[:sum(sizes[:i])], body...)
		}
	}
	return u, err
}

func sum(all []int64) (n int64) {
	for _, v := range all {
		n += v
	}
	return n
}

// end removes what is left, to save memory.
func (u *resumed) end() {
	u.view.armed.Store(false)
	_ = u.service.Abort(u.ctx, u.ref)
	u.remove(u.ref.Key)
	page, err := u.view.Store.List(u.ctx, u.s.bucket.StoreName, &backends.ListOptions{Prefix: sealed.StashDir(u.ref.ID)})
	if err == nil {
		for _, e := range page.Entries {
			u.remove(e.Key)
		}
	}
	u.view.mu.Lock()
	defer u.view.mu.Unlock()
	for i := range u.sizes {
		delete(u.view.attempts, attemptKey(u.ref.ID, i+1))
	}
}

// meddling is what a provider does to an upload; it has another one to take from.
type meddling func(u, other *resumed) (*attack, string)

// upload makes a kind. Large ones have a part that the backend holds.
func upload(name string, large bool, meddle meddling) kind {
	return kind{name: "upload: " + name, over: func(t *trial) (string, verdict) {
		sizes := []int64{20_000}
		if large {
			sizes = []int64{sealed.MinPartSize, 3000}
		}
		u, err := t.begin(sizes...)
		if err != nil {
			return "upload", lie("beginning an upload: %v", err)
		}
		defer u.end()
		other, err := t.begin(20_000)
		if err != nil {
			return "upload", lie("beginning an upload: %v", err)
		}
		defer other.end()
		a, key := meddle(u, other)
		a.first = 1
		t.view.target = backends.ObjectID{Bucket: t.s.bucket.StoreName, Key: key}
		t.view.arm(a)
		v := u.resume()
		if v.outcome == wrong {
			v.why = fmt.Sprintf("%s (%s): %s", name, a.detail, v.why)
		}
		return "upload", v
	}}
}

// resume completes the upload with another gateway, from the client's ETags or from a
// list, and reads what it has become when the provider is honest again.
func (u *resumed) resume() verdict {
	s, err := u.w.service(u.view)
	if err != nil {
		return lie("making a gateway: %v", err)
	}
	etags := u.etags
	if u.IntN(2) == 0 {
		listed, err := s.ListParts(u.ctx, objects.PartsRequest{UploadRef: u.ref})
		if err != nil {
			return verdict{outcome: refused}
		}
		etags = nil
		for _, p := range listed.Parts {
			etags = append(etags, p.ETag)
		}
	}
	if u.IntN(4) == 0 { // the last part again, by the second gateway
		body := u.plain[sum(u.sizes[:len(u.sizes)-1]):]
		p, err := s.PutPart(u.ctx, objects.PutPartRequest{UploadRef: u.ref, Number: len(u.sizes), Body: bytes.NewReader(body), Size: int64(len(body))})
		if err != nil {
			return verdict{outcome: refused}
		}
		etags = append(etags[:min(len(etags), len(u.sizes)-1):len(u.sizes)-1], p.ETag)
	}
	var parts []objects.CompletePart
	for i, etag := range etags {
		parts = append(parts, objects.CompletePart{Number: i + 1, ETag: etag})
	}
	size := int64(-1)
	if len(parts) != len(u.sizes) {
		size = int64(len(u.plain)) // as careful clients say
	}
	if _, err := s.Complete(u.ctx, objects.CompleteRequest{UploadRef: u.ref, Parts: parts, Size: size}); err != nil {
		return verdict{outcome: refused}
	}
	u.view.armed.Store(false)
	return u.readUpload()
}

func (u *resumed) readUpload() verdict {
	reader, err := u.service.Get(u.ctx, objects.GetRequest{Bucket: u.s.bucket, Key: u.ref.Key})
	if err != nil {
		return verdict{outcome: refused}
	}
	var body bytes.Buffer
	_, err = reader.WriteTo(&body)
	_ = reader.Close()
	switch {
	case err == nil && bytes.Equal(body.Bytes(), u.plain):
		return verdict{outcome: truthful}
	case err != nil && bytes.HasPrefix(u.plain, body.Bytes()):
		return verdict{outcome: cut}
	}
	return lie("%d bytes are not those that were uploaded (ended with %v)", body.Len(), err)
}

// uploads are attacks on what lies beside an unfinished upload.
func uploads() []kind {
	all := []kind{
		upload("stash flipped", false, func(u, _ *resumed) (*attack, string) {
			at, mask := u.within(200), u.mask()
			return &attack{detail: fmt.Sprint("byte ", at), thing: func(o *thing) { o.bytes = o.bytes.flip(at%o.bytes.size(), mask) }}, u.stash()
		}),
		upload("stash cut or extended", false, func(u, _ *resumed) (*attack, string) {
			by := u.near(300) - 150
			return &attack{detail: fmt.Sprint("by ", by), thing: func(o *thing) {
				o.bytes = append(o.bytes.cut(0, max(0, o.bytes.size()+min(by, -1))), make([]byte, max(0, by)))
				o.resize()
			}}, u.stash()
		}),
		upload("stash of another upload", false, func(u, other *resumed) (*attack, string) {
			return u.serve(other.stash()), u.stash()
		}),
		upload("stash removed", false, func(u, _ *resumed) (*attack, string) {
			return &attack{reply: func(r *reply) { r.err = backends.ErrNotFound }}, u.stash()
		}),
		upload("staged part flipped", false, func(u, _ *resumed) (*attack, string) {
			at, mask := u.within(20_000), u.mask()
			return &attack{detail: fmt.Sprint("byte ", at), thing: func(o *thing) { o.bytes = o.bytes.flip(at%o.bytes.size(), mask) }}, u.staged()
		}),
		upload("staged part cut", true, func(u, _ *resumed) (*attack, string) {
			n := 1 + u.near(3000)
			return &attack{detail: fmt.Sprint(n, " bytes"), reply: func(r *reply) { r.body = r.body.cut(0, r.body.size()-n) }}, u.staged()
		}),
		upload("staged part of another upload", false, func(u, other *resumed) (*attack, string) {
			return u.serve(other.staged()), u.staged()
		}),
	}
	return append(append(all, tokens()...), lists()...)
}

// serve shows other bytes under a name, with what else there was.
func (u *resumed) serve(key string) *attack {
	o, err := u.view.look(u.ctx, backends.ObjectID{Bucket: u.s.bucket.StoreName, Key: key})
	if err != nil {
		panic(err)
	}
	return &attack{detail: key, thing: func(t *thing) { t.bytes = o.bytes }}
}

// renamed makes a kind that changes the names of the empty objects that keep tokens.
func renamed(name string, large bool, change func(u, other *resumed, key string) string) kind {
	return upload("tokens "+name, large, func(u, other *resumed) (*attack, string) {
		draw := u.trial
		return &attack{list: func(p *backends.Page) {
			for i, e := range p.Entries {
				if strings.Contains(strings.TrimPrefix(e.Key, sealed.StashDir(u.ref.ID)), ".") {
					u.trial = draw
					p.Entries[i].Key = change(u, other, e.Key)
				}
			}
		}}, u.staged()
	})
}

func tokens() []kind {
	return []kind{
		renamed("flipped", false, func(u, _ *resumed, key string) string {
			dir, _ := strings.CutSuffix(key, key[len(sealed.StashDir(u.ref.ID)):])
			b := []byte(key)
			b[len(dir)+6+u.IntN(len(b)-len(dir)-6)] ^= u.mask()
			return string(b)
		}),
		renamed("cut", false, func(u, _ *resumed, key string) string { return key[:len(key)-1-u.IntN(100)] }),
		renamed("removed", false, func(*resumed, *resumed, string) string { return "elsewhere" }),
		renamed("of another part", true, func(u, _ *resumed, key string) string {
			dir := sealed.StashDir(u.ref.ID)
			return dir + map[string]string{"00001": "00002", "00002": "00001"}[key[len(dir):len(dir)+5]] + key[len(dir)+5:]
		}),
	}
}

// lists are lies about the parts that the backend holds.
func lists() []kind {
	listed := func(name string, change func(u *resumed, p *backends.Part)) kind {
		return upload("parts listed with "+name, true, func(u, _ *resumed) (*attack, string) {
			return &attack{parts: func(page *backends.PartsPage) {
				for i := range page.Parts {
					change(u, &page.Parts[i])
				}
			}}, u.staged()
		})
	}
	return []kind{
		listed("other sizes", func(u *resumed, p *backends.Part) {
			p.Size += []int64{-1, 1, -16, 16, -p.Size, -p.Size - 1, 16400, -16400, 1 << 62}[u.IntN(9)]
		}),
		listed("other numbers", func(u *resumed, p *backends.Part) { p.Number += []int{-2, -1, 1, 2, 9999}[u.IntN(5)] }),
		listed("other ETags", func(_ *resumed, p *backends.Part) { p.ETag = "0123456789abcdef0123456789abcdef" }),
	}
}
