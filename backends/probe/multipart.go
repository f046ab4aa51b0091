package probe

import (
	"bytes"
	"errors"
	"fmt"

	"chatelaine/backends"
)

// minPart is S3's smallest part but the last, in bytes.
const minPart = 5 << 20

func (p *prober) multipartTrials() []trial {
	const parts = "multipart uploads of clients, and objects above the largest single PUT"
	return []trial{
		{name: "multipart", refuses: parts, try: p.multipart},
		{name: "multipart-uneven", refuses: "multipart uploads whose parts are not of one size, numbered without gaps", try: p.uneven},
		{name: "multipart-unnamed", refuses: "uploads of which a client does not name all parts that it has sent", try: p.unnamed},
		{name: "multipart-conditions", relied: true, refuses: "If-None-Match and If-Match on CompleteMultipartUpload: NotImplemented", try: p.conditionalComplete},
		{name: "multipart-abort", refuses: "uploads that are aborted may go on costing", try: p.abort},
	}
}

// part is one of an upload: its number and bytes.
type part struct {
	number int
	data   []byte
}

func (p *prober) upload(key string, parts ...part) (backends.UploadID, []backends.Part, error) {
	if p.parts == nil {
		return backends.UploadID{}, nil, backends.ErrUnsupported
	}
	up, err := p.parts.CreateUpload(p.ctx, p.bucket, p.prefix+key, backends.Attributes{Metadata: map[string]string{headerName: "x"}})
	if err != nil {
		return up, nil, err
	}
	p.uploads = append(p.uploads, up)
	var sent []backends.Part
	for _, q := range parts {
		s, err := p.parts.PutPart(p.ctx, up, q.number, body(q.data))
		if err != nil {
			return up, nil, fmt.Errorf("part %d of %d bytes: %w", q.number, len(q.data), err)
		}
		sent = append(sent, s)
	}
	return up, sent, nil
}

// join uploads and completes, and reads the object back.
func (p *prober) join(key string, parts ...part) (Result, string) {
	up, sent, err := p.upload(key, parts...)
	if err == nil {
		_, err = p.parts.Complete(p.ctx, up, sent, backends.Conditions{})
	}
	if err != nil {
		return failed("uploading", err)
	}
	var all [][]byte
	for _, q := range parts {
		all = append(all, q.data)
	}
	if wrong := p.holds(key, bytes.Join(all, nil)); wrong != "" {
		return Ignored, wrong
	}
	return Yes, ""
}

func (p *prober) multipart() (Result, string) {
	return p.join("multipart", part{1, pattern(minPart, 1)}, part{2, pattern(small, 2)})
}

// uneven is what the gateway makes of what clients send: parts of their sizes and
// numbers, and one of its own at the end.
func (p *prober) uneven() (Result, string) {
	return p.join("uneven", part{2, pattern(minPart+1000, 1)}, part{7, pattern(minPart, 2)}, part{10000, pattern(small, 3)})
}

func (p *prober) unnamed() (Result, string) {
	up, sent, err := p.upload("unnamed", part{1, pattern(small, 1)}, part{2, pattern(small, 2)})
	if err == nil {
		_, err = p.parts.Complete(p.ctx, up, sent[:1], backends.Conditions{})
	}
	if err != nil {
		return failed("completing with one of two parts", err)
	}
	if wrong := p.holds("unnamed", pattern(small, 1)); wrong != "" {
		return Ignored, wrong
	}
	return Yes, ""
}

func (p *prober) conditionalComplete() (Result, string) {
	if p.parts == nil {
		return No, ""
	}
	w, err := p.put("completed", []byte("first"))
	if err != nil {
		return failed("putting", err)
	}
	complete := func(c backends.Conditions) error {
		up, sent, err := p.upload("completed", part{1, []byte("second")})
		if err != nil {
			return err
		}
		_, err = p.parts.Complete(p.ctx, up, sent, c)
		return err
	}
	untouched := func() string { return p.holds("completed", []byte("first")) }
	result, detail := condition(func() error { return complete(never()) }, func() error { return nil }, untouched)
	if result != Yes {
		return result, detail
	}
	return condition(func() error { return complete(only(noETag)) }, func() error { return complete(only(w.ETag)) }, untouched)
}

func (p *prober) abort() (Result, string) {
	up, _, err := p.upload("aborted", part{1, pattern(small, 1)})
	if err == nil {
		err = p.parts.Abort(p.ctx, up)
	}
	if err != nil {
		return failed("aborting", err)
	}
	if _, err := p.parts.PutPart(p.ctx, up, 2, body([]byte("x"))); !errors.Is(err, backends.ErrUploadNotFound) {
		return Ignored, fmt.Sprintf("a part of an upload that was aborted: %v", err)
	}
	return Yes, ""
}

func (p *prober) copyTrials() []trial {
	const through = "nothing: the gateway copies through itself (dialect)"
	return []trial{
		{name: "copy", refuses: through, try: p.copies},
		{name: "copy-source-conditions", relied: true, refuses: through, try: p.copyChanged},
		{name: "copy-conditions", relied: true, refuses: "If-Match and If-None-Match on the destination of CopyObject: NotImplemented", try: p.copyConditions},
	}
}

func (p *prober) copyTo(key string, o *backends.CopyOptions) error {
	if p.copier == nil {
		return backends.ErrUnsupported
	}
	_, err := p.copier.Copy(p.ctx, p.id("source"), p.id(key), o)
	return err
}

func (p *prober) copies() (Result, string) {
	data := pattern(large, 4)
	if _, err := p.put("source", data); err != nil {
		return failed("putting", err)
	}
	attrs := backends.Attributes{Metadata: map[string]string{headerName: "new"}}
	if err := p.copyTo("copied", &backends.CopyOptions{Attributes: attrs}); err != nil {
		return failed("copying", err)
	}
	if wrong := p.holds("copied", data); wrong != "" {
		return Ignored, wrong
	}
	info, err := p.Store.Head(p.ctx, p.id("copied"), nil)
	if err != nil || info.Attributes.Metadata[headerName] != "new" {
		return Ignored, "the copy has other metadata than it was given"
	}
	return p.copyPart()
}

func (p *prober) copyPart() (Result, string) {
	up, _, err := p.upload("copied-part")
	if err != nil {
		return failed("uploading", err)
	}
	sent, err := p.copier.CopyPart(p.ctx, up, 1, p.id("source"), &backends.Range{Offset: 100, Length: small}, "")
	if err == nil {
		_, err = p.parts.Complete(p.ctx, up, []backends.Part{sent}, backends.Conditions{})
	}
	if err != nil {
		return failed("copying a range to a part", err)
	}
	if wrong := p.holds("copied-part", pattern(large, 4)[100:100+small]); wrong != "" {
		return Ignored, wrong
	}
	return Yes, "objects and parts"
}

func (p *prober) copyChanged() (Result, string) {
	w, err := p.put("source", pattern(small, 6))
	if err != nil {
		return failed("putting", err)
	}
	return condition(
		func() error { return p.copyTo("copied", &backends.CopyOptions{SourceIfMatch: noETag}) },
		func() error { return p.copyTo("copied", &backends.CopyOptions{SourceIfMatch: w.ETag}) },
		func() string { return "" },
	)
}

func (p *prober) copyConditions() (Result, string) {
	_, err := p.put("source", pattern(small, 6))
	if err != nil {
		return failed("putting", err)
	}
	w, err := p.put("taken", []byte("first"))
	if err != nil {
		return failed("putting", err)
	}
	to := func(c backends.Conditions) error { return p.copyTo("taken", &backends.CopyOptions{Conditions: c}) }
	untouched := func() string { return p.holds("taken", []byte("first")) }
	result, detail := condition(func() error { return to(never()) }, func() error { return nil }, untouched)
	if result != Yes {
		return result, detail
	}
	return condition(func() error { return to(only(noETag)) }, func() error { return to(only(w.ETag)) }, untouched)
}
