package objects

import (
	"context"
	"errors"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// completeAgain answers a Complete whose upload is gone since an earlier one made
// the object, as S3 does for clients that lost the first answer. Nothing is kept
// for that: the tokens in the parts' ETags verify under the data key of the object
// that is there, and for the upload id, only if it was made from that upload.
func (s *Service) completeAgain(ctx context.Context, r CompleteRequest, cause error) (PutResult, error) {
	if !errors.Is(cause, backends.ErrUploadNotFound) {
		return PutResult{}, cause
	}
	q, err := s.newQuery(ctx, GetRequest{Bucket: r.Bucket, Key: r.Key, Checksums: true})
	if err != nil {
		return PutResult{}, cause
	}
	f, st, err := q.source()
	if err != nil || !f.madeFrom(r) {
		return PutResult{}, cause
	}
	result := PutResult{ETag: st.ETag, Version: st.Version, Modified: st.Modified, Size: st.Size, KEK: st.KEK}
	if len(st.Checksums) > 0 {
		result.Checksum = &st.Checksums[0]
	}
	return result, nil
}

// madeFrom says whether the object consists of just these parts of this upload.
func (f *found) madeFrom(r CompleteRequest) bool {
	if f.env.Kind != sealed.Multipart || len(r.Parts) != f.table.Len() {
		return false
	}
	for i, p := range r.Parts {
		_, part, err := sealed.OpenETag(f.env.DEK, r.ID, p.Number, p.ETag)
		e := f.table.Entry(i)
		if err != nil || e.Number != p.Number || e.Salt != part.Salt || e.Length != part.Length {
			return false
		}
	}
	return true
}
