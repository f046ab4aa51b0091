package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// outcome is what became of an object that an adoption came by.
type outcome string

const (
	outcomeSealed  outcome = "sealed"
	outcomeAlready outcome = "already"
	outcomeGone    outcome = "gone"
	outcomeProblem outcome = "problem"
)

// visit is the outcome of one object, or its problem.
type visit struct {
	outcome          outcome
	size             int64
	sameETag, locked bool
	problem          string
}

func (v visit) count(c *keys.AdoptionCounts) {
	one := func(is bool) uint64 {
		if is {
			return 1
		}
		return 0
	}
	c.Sealed += one(v.outcome == outcomeSealed)
	c.Already += one(v.outcome == outcomeAlready)
	c.Gone += one(v.outcome == outcomeGone)
	c.Problems += one(v.outcome == outcomeProblem)
	c.SameETag += one(v.sameETag)
	c.Locked += one(v.locked)
	c.SealedBytes += uint64(v.size)
}

// visit seals an object unless it is sealed already. What can be mended for this object
// alone is a problem; an error is what concerns all, as a backend or a key that is away.
func (a *adoption) visit(ctx context.Context, e backends.Info) (visit, error) {
	for range 3 {
		v, err := a.look(ctx, e)
		switch {
		case errors.Is(err, backends.ErrNotFound), errors.Is(err, backends.ErrDeleteMarker):
			return visit{outcome: outcomeGone}, nil
		case err == nil:
			return v, nil
		case isProblem(err):
			return visit{outcome: outcomeProblem, problem: clip(err.Error(), 300)}, nil
		case !errors.Is(err, backends.ErrPrecondition) && !errors.Is(err, backends.ErrConflict) && !errors.Is(err, errReplaced):
			return visit{}, fmt.Errorf("sealing %q: %w", e.Key, err)
		}
		// A client was faster. What it wrote is what counts.
		e, err = a.store.Head(ctx, idOf(a.bucket, e.Key, ""), nil)
		if errors.Is(err, backends.ErrNotFound) {
			return visit{outcome: outcomeGone}, nil
		}
		if err != nil {
			return visit{}, fmt.Errorf("looking at %q: %w", e.Key, err)
		}
	}
	return visit{outcome: outcomeProblem, problem: "it is written all the time; adopt the bucket again"}, nil
}

// errLate is a problem: only what was there when the adoption began is believed.
var errLate = errors.New("it was written as plaintext after the adoption began, and not through the gateway")

// isProblem says whether an error is about one object, and would be there again.
func isProblem(err error) bool {
	return slices.ContainsFunc([]error{
		errLate, ErrMetadataTooLarge, ErrBodyTooLarge, ErrNotSealed, ErrUnsupported, ErrKeyName, keys.ErrKeyNotFound, sealed.ErrCorrupt, sealed.ErrUnsupported,
		backends.ErrTooLarge, backends.ErrInvalidName, backends.ErrLocked, backends.ErrNoLock, backends.ErrDenied, backends.ErrUnsupported,
	}, func(known error) bool { return errors.Is(err, known) })
}

// look does what is to be done with an object as it was found.
func (a *adoption) look(ctx context.Context, e backends.Info) (visit, error) {
	if e.Modified.After(a.bucket.Adopting.CutOff) {
		return a.verify(ctx, e)
	}
	object, err := a.store.Get(ctx, idOf(a.bucket, e.Key, ""), &backends.GetOptions{Conditions: backends.Conditions{IfMatch: []string{e.ETag}}})
	if err != nil {
		return visit{}, err
	}
	defer func() { _ = object.Body.Close() }()
	if _, ours := object.Attributes.Metadata[sealed.MetadataName]; ours {
		return a.verify(ctx, object.Info)
	}
	if !isPlain(a.bucket, e.Key, object.Info) { // newer than the list has said, or put back where all was sealed
		return visit{}, errLate
	}
	found := backends.Info{ETag: e.ETag, Size: object.Size}
	if err := sameAnswer(a.bucket, e.Key, found, backends.Range{Length: object.Size}, object); err != nil {
		return visit{}, err
	}
	return a.seal(ctx, e.Key, object)
}

// verify makes sure that an object is sealed, and for this name.
func (a *adoption) verify(ctx context.Context, e backends.Info) (visit, error) {
	if len(e.Attributes.Metadata) == 0 {
		key := e.Key
		var err error
		if e, err = a.store.Head(ctx, idOf(a.bucket, key, ""), nil); err != nil {
			return visit{}, err
		}
		e.Key = key
	}
	if _, ours := e.Attributes.Metadata[sealed.MetadataName]; !ours {
		return visit{}, errLate
	}
	if _, _, err := a.openEnvelope(a.bucket, e.Key, e, a.finder(ctx, a.bucket)); err != nil {
		return visit{}, err
	}
	return visit{outcome: outcomeAlready}, nil
}

// seal puts the sealed object in the place of the plaintext one, if that is still there.
func (a *adoption) seal(ctx context.Context, key string, object *backends.Object) (visit, error) {
	kept, err := a.kept(ctx, key, object.Info)
	if err != nil {
		return visit{}, err
	}
	var put PutResult
	if object.Size > a.limits.whole {
		_ = object.Body.Close() // it is read in ranges
		put, err = a.sealInParts(ctx, key, object.Info, kept)
	} else {
		put, err = a.Put(ctx, PutRequest{
			Bucket: a.bucket, Key: key, Body: object.Body, Size: object.Size, Attributes: foreignAttributes(object.Info),
			Late: CRC64NVME, StoreAttributes: kept, pinned: object.ETag,
		})
	}
	if err != nil {
		return visit{}, err
	}
	v := visit{outcome: outcomeSealed, size: object.Size, locked: kept.Lock.Mode != "" || kept.Lock.Hold}
	v.sameETag = put.ETag == plainETag(a.bucket, object.ETag)
	return v, nil
}

// kept are an object's tags and lock, which the sealed one is to have too.
func (a *adoption) kept(ctx context.Context, key string, info backends.Info) (StoreAttributes, error) {
	out := StoreAttributes{Lock: info.Attributes.Lock}
	out.Lock.Lifted = false
	tagger, ok := backends.As[backends.Tagger](a.store)
	if !ok || info.TagCount == 0 {
		return out, nil
	}
	var err error
	out.Tags, _, err = tagger.Tags(ctx, idOf(a.bucket, key, info.Version))
	return out, err
}

// sealInParts seals an object that is too large for one PUT.
func (a *adoption) sealInParts(ctx context.Context, key string, info backends.Info, kept StoreAttributes) (PutResult, error) {
	upload, err := a.CreateUpload(ctx, CreateUploadRequest{Bucket: a.bucket, Key: key, Attributes: foreignAttributes(info), StoreAttributes: kept})
	if err != nil {
		return PutResult{}, err
	}
	put, err := a.uploadParts(ctx, upload, info)
	if err != nil {
		return PutResult{}, errors.Join(err, a.Abort(context.WithoutCancel(ctx), upload))
	}
	return put, nil
}

func (a *adoption) uploadParts(ctx context.Context, upload UploadRef, info backends.Info) (PutResult, error) {
	piece := max(a.limits.part, (info.Size+MaxPartNumber-1)/MaxPartNumber)
	var parts []CompletePart
	for off := int64(0); off < info.Size; off += piece {
		etag, err := a.uploadPart(ctx, upload, info, len(parts)+1, backends.Range{Offset: off, Length: min(piece, info.Size-off)})
		if err != nil {
			return PutResult{}, err
		}
		parts = append(parts, CompletePart{Number: len(parts) + 1, ETag: etag})
	}
	return a.Complete(ctx, CompleteRequest{UploadRef: upload, Parts: parts, Size: info.Size, pinned: info.ETag})
}

func (a *adoption) uploadPart(ctx context.Context, upload UploadRef, info backends.Info, number int, r backends.Range) (string, error) {
	object, err := a.store.Get(ctx, idOf(a.bucket, upload.Key, ""), &backends.GetOptions{
		Range: &r, Conditions: backends.Conditions{IfMatch: []string{info.ETag}},
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = object.Body.Close() }()
	if err := sameAnswer(a.bucket, upload.Key, info, r, object); err != nil {
		return "", err
	}
	part, err := a.PutPart(ctx, PutPartRequest{UploadRef: upload, Number: number, Body: io.Reader(object.Body), Size: r.Length})
	return part.ETag, err
}
