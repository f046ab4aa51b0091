package hostile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
)

// paths are all ways on which bytes, or what is said of them, leave the gateway.
// A new command that reads sealed objects by itself gets a path here.
func paths() []path {
	return append(ruinPaths(), []path{
		{"GET", func(t *trial) verdict { return t.get(objects.GetRequest{Checksums: t.IntN(2) == 0}, all) }},
		{"GET range", (*trial).getRange},
		{"GET part", (*trial).getPart},
		{"GET if match", func(t *trial) verdict {
			return t.get(objects.GetRequest{Conditions: backends.Conditions{IfNoneMatch: []string{"another"}}}, all)
		}},
		{"HEAD", (*trial).head},
		{"HEAD checksums", func(t *trial) verdict { return t.stat(objects.GetRequest{Checksums: true}, all) }},
		{"HEAD part", func(t *trial) verdict {
			p := t.IntN(len(t.s.now.parts))
			return t.stat(objects.GetRequest{Part: max(1, t.s.now.parts[p].number)}, partOf(p))
		}},
		{"attributes", (*trial).attributes},
		{"LIST", (*trial).list},
		{"copy by the backend", func(t *trial) verdict { return t.copy("main", "") }},
		{"copy to another backend", func(t *trial) verdict { return t.copy("second", "") }},
		{"copy sealed again", func(t *trial) verdict { return t.copy("main", objects.SHA512) }},
		{"UploadPartCopy", (*trial).copyPart},
		{"HTTP GET", func(t *trial) verdict { return t.web.get(t, "", all) }},
		{"HTTP GET range", (*trial).httpRange},
		{"HTTP HEAD", (*trial).httpHead},
	}...)
}

// get reads by the service.
func (t *trial) get(r objects.GetRequest, w want) verdict {
	r.Bucket, r.Key = t.s.bucket, t.s.key
	reader, err := t.service.Get(t.ctx, r)
	if err != nil {
		return t.refusal(isMissing(err))
	}
	var body bytes.Buffer
	_, err = reader.WriteTo(&body)
	if closing := reader.Close(); closing != nil {
		return lie("closing: %v", closing)
	}
	return t.judge(w, reader.Stat, reader.Span, body.Bytes(), err)
}

// ranges draws a range, and what it should yield of a version.
func (t *trial) ranges() (objects.ByteRange, want) {
	n := int64(len(t.s.now.plain))
	first := t.within(n)
	if t.IntN(3) == 0 {
		first = min(max(0, n-1), t.near(n)/sealed.ChunkSize*sealed.ChunkSize)
	}
	r := objects.ByteRange{First: first, Last: first + t.near(n-first)}
	switch t.IntN(4) {
	case 0:
		r.Last = -1
	case 1:
		r.First, r.Last = -1, 1+t.near(n)
	}
	return r, func(v *version) (int64, int64) {
		size := int64(len(v.plain))
		switch {
		case r.First < 0:
			return max(0, size-r.Last), min(size, r.Last)
		case r.Last < 0:
			return r.First, size - r.First
		}
		return r.First, min(size, r.Last+1) - r.First
	}
}

func (t *trial) getRange() verdict {
	r, w := t.ranges()
	return t.get(objects.GetRequest{Range: &r}, w)
}

func partOf(i int) want {
	return func(v *version) (int64, int64) { return v.parts[i].plain, v.parts[i].length }
}

func (t *trial) getPart() verdict {
	i := t.IntN(len(t.s.now.parts))
	return t.get(objects.GetRequest{Part: max(1, t.s.now.parts[i].number)}, partOf(i))
}

// stat is HEAD: nothing is read.
func (t *trial) stat(r objects.GetRequest, w want) verdict {
	r.Bucket, r.Key = t.s.bucket, t.s.key
	st, span, err := t.service.Head(t.ctx, r)
	if err != nil {
		return t.refusal(isMissing(err))
	}
	v := t.judge(w, st, span, nil, errUnread)
	if v.outcome == cut { // nothing was to be read
		v.outcome = truthful
	}
	return v
}

var errUnread = errors.New("nothing was read")

// head may be wrong about the size of a multipart object: reading tells (FORMAT.md
// section 8). All else that it says is sealed. Nothing lies about sizes alone where
// objects have a past.
func (t *trial) head() verdict {
	v := t.stat(objects.GetRequest{}, all)
	if v.outcome != wrong || !t.s.multipart() || t.memory != nil && t.memory.guarded {
		return v
	}
	st, _, err := t.service.Head(t.ctx, objects.GetRequest{Bucket: t.s.bucket, Key: t.s.key})
	if err != nil {
		return verdict{outcome: known}
	}
	for _, version := range t.allowed() {
		st.Size = int64(len(version.plain))
		if version.compareStat(st) == nil {
			return verdict{outcome: known}
		}
	}
	return v
}

// attributes is GetObjectAttributes.
func (t *trial) attributes() verdict {
	st, parts, err := t.service.PartsOf(t.ctx, objects.GetRequest{Bucket: t.s.bucket, Key: t.s.key})
	if err != nil {
		return t.refusal(isMissing(err))
	}
	var why []error
	for _, v := range t.allowed() {
		mismatch := errors.Join(v.compareStat(st), v.compareParts(parts))
		if mismatch == nil {
			return verdict{outcome: map[bool]outcome{true: truthful, false: known}[v == t.s.now]}
		}
		why = append(why, mismatch)
	}
	return lie("%v", errors.Join(why...))
}

func (v *version) compareParts(got []objects.PartInfo) error {
	if len(got) == 0 && v.parts[0].number == 0 {
		return nil
	}
	if len(got) != len(v.parts) {
		return fmt.Errorf("%d parts, want %d", len(got), len(v.parts))
	}
	for i, p := range v.parts {
		if got[i].Number != p.number || got[i].Size != p.length {
			return fmt.Errorf("part %d is number %d of %d bytes, want %d of %d", i, got[i].Number, got[i].Size, p.number, p.length)
		}
	}
	return nil
}

// list shows what the provider says, which nothing vouches for, but for the algorithm of
// a checksum and MD5 ETags, which are sealed.
func (t *trial) list() verdict {
	page, err := t.service.List(t.ctx, objects.ListRequest{Bucket: t.s.bucket, Prefix: t.s.key})
	if err != nil {
		return verdict{outcome: refused}
	}
	for _, e := range page.Entries {
		if objects.Reserved(e.Key) || e.Size < -1 {
			return lie("the list has %+v", e)
		}
		if e.Key != t.s.key {
			continue
		}
		if e.Algorithm != "" && !t.hasSum(e.Algorithm) {
			return lie("the list says that there is a %s", e.Algorithm)
		}
		if len(e.ETag) == 32 && !t.isMD5(e.ETag) && t.adoptee == nil {
			return lie("the list says that the MD5 is %s", e.ETag)
		}
		if e.Size != int64(len(t.s.now.plain)) {
			return verdict{outcome: known}
		}
	}
	return verdict{outcome: truthful}
}

func (t *trial) hasSum(a objects.Algorithm) bool {
	for _, s := range append(t.s.now.sums, t.s.old.sums...) {
		if s.Algorithm == a {
			return true
		}
	}
	return false
}

// isMD5 says whether an ETag is the MD5 of a version. A provider that shows the ETag of
// the version before has that shown.
func (t *trial) isMD5(etag string) bool {
	for _, v := range []*version{t.s.now, t.s.old} {
		if fmt.Sprintf("%x", sumOf(objects.MD5, v.plain)) == etag {
			return true
		}
	}
	return false
}

// copy has a copy made, and reads it when the provider is honest again.
func (t *trial) copy(store string, again objects.Algorithm) verdict {
	to := t.s.bucket
	to.Store = store
	key := fmt.Sprintf("copies/%d", t.Uint64())
	made, err := t.service.Copy(t.ctx, objects.CopyRequest{
		Source: objects.GetRequest{Bucket: t.s.bucket, Key: t.s.key}, Bucket: to, Key: key, Algorithm: again,
	})
	t.view.armed.Store(false)
	defer t.remove(key)
	if err != nil {
		return t.refusal(isMissing(err))
	}
	v := t.readBack(key, again)
	if v.outcome == truthful && again == "" {
		if err := t.s.now.compareSums(made.Checksums); err != nil {
			return lie("the copy's answer: %v", err)
		}
	}
	return v
}

// readBack reads a copy. A sum that was asked for was computed from its bytes.
func (t *trial) readBack(key string, again objects.Algorithm) verdict {
	reader, err := t.service.Get(t.ctx, objects.GetRequest{Bucket: t.s.bucket, Key: key, Checksums: true})
	if err != nil {
		return verdict{outcome: refused}
	}
	var body bytes.Buffer
	_, err = reader.WriteTo(&body)
	_ = reader.Close()
	st := reader.Stat
	if again != "" && err == nil {
		for _, c := range st.Checksums {
			if !bytes.Equal(c.Value, sumOf(c.Algorithm, body.Bytes())) {
				return lie("the copy's %s is not that of its bytes", c.Algorithm)
			}
		}
		st.Checksums = nil
	}
	if again != "" {
		st.Parts = 0
	}
	return t.judge(all, st, reader.Span, body.Bytes(), err)
}

func (t *trial) remove(key string) {
	_, _ = t.view.Store.Delete(t.ctx, backends.ObjectID{Bucket: t.s.bucket.StoreName, Key: key}, nil) // to save memory
}

// copyPart makes an object of a range of the subject.
func (t *trial) copyPart() verdict {
	r, w := t.ranges()
	key := fmt.Sprintf("parts/%d", t.Uint64())
	defer t.remove(key)
	u, err := t.service.CreateUpload(t.ctx, objects.CreateUploadRequest{Bucket: t.s.bucket, Key: key})
	if err != nil {
		return lie("creating an upload: %v", err)
	}
	source := objects.GetRequest{Bucket: t.s.bucket, Key: t.s.key, Range: &r}
	part, err := t.service.CopyPart(t.ctx, objects.CopyPartRequest{UploadRef: u, Number: 1, Source: source})
	t.view.armed.Store(false)
	if err != nil {
		_ = t.service.Abort(t.ctx, u) // to save memory
		return t.refusal(isMissing(err))
	}
	list := []objects.CompletePart{{Number: 1, ETag: part.ETag}}
	if _, err := t.service.Complete(t.ctx, objects.CompleteRequest{UploadRef: u, Parts: list, Size: -1}); err != nil {
		return lie("completing an upload: %v", err)
	}
	reader, err := t.service.Get(t.ctx, objects.GetRequest{Bucket: t.s.bucket, Key: key})
	if err != nil {
		return lie("reading a part that was copied: %v", err)
	}
	var body bytes.Buffer
	_, err = reader.WriteTo(&body)
	_ = reader.Close()
	return t.judgeBytes(w, body.Bytes(), err)
}

// judgeBytes is judge where nothing is said beside the bytes.
func (t *trial) judgeBytes(w want, body []byte, err error) verdict {
	versions := t.allowed()
	if t.kind.name == "part of an earlier attempt" && t.s.now.swapped != nil {
		versions = append(versions, &version{plain: t.s.now.swapped})
	}
	for _, v := range versions {
		offset, length := w(v)
		if offset < 0 || length < 0 {
			continue
		}
		should := v.plain[offset : offset+length]
		switch {
		case err != nil && bytes.HasPrefix(should, body):
			return verdict{outcome: cut}
		case err == nil && bytes.Equal(should, body):
			return verdict{outcome: map[bool]outcome{true: truthful, false: known}[v == t.s.now]}
		}
	}
	if t.adoptee != nil && t.adoptee.mayBe(objects.Stat{Size: -1}, body, err) {
		return verdict{outcome: known}
	}
	return lie("%d bytes are not those of the object (ended with %v)", len(body), err)
}

func (t *trial) httpRange() verdict {
	r, w := t.ranges()
	text := fmt.Sprintf("bytes=%d-%d", r.First, r.Last)
	switch {
	case r.First < 0:
		text = fmt.Sprintf("bytes=-%d", r.Last)
	case r.Last < 0:
		text = strings.TrimSuffix(text, "-1")
	}
	return t.web.get(t, text, w)
}
