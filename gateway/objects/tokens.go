package objects

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// The token in a part's ETag (FORMAT.md section 6) is known to the client that
// uploaded the part. So that another one, or the same after a crash, can go on from
// ListParts alone, what it says is kept as well, sealed: in the name of an empty object
// in the upload's folder, where one LIST gives a thousand of them and no request more
// is needed. It opens for one upload, number and ETag of the backend's only, which
// tells whether it belongs to the part that is there now.

// tokenName is the name that keeps what a part's token says. It sorts behind a staged part of
// that number and before the next number.
func (r UploadRef) tokenName(number int, token string) string {
	return r.stagedName(number) + "." + token
}

// afterPart is above all names of a part and below those of the next.
func (r UploadRef) afterPart(number int) string { return r.stagedName(number) + ".~" }

// keepToken stores the token of a part that the backend has taken. A part whose
// token cannot be kept has failed: the client tries again.
func (s *Service) keepToken(ctx context.Context, u *upload, at sealed.TokenPlace, p sealed.Part) error {
	token, err := s.suite.SealToken(u.stash.DEK, at, p)
	if err != nil {
		return err
	}
	return s.putReserved(ctx, u.Bucket, u.store, u.tokenName(at.Number, token), nil)
}

// storedPart is a part as the backend has it, with what its token says.
type storedPart struct {
	backends.Part
	ETag   string      // as UploadPart gave it; without a token where none is kept
	Sealed sealed.Part // with a salt only where there was a token
	Bound  bool
}

// folder is what lies beside an upload's stash.
type folder struct {
	staged []backends.Part
	tokens map[int][]string
}

// list reads the parts above the number after, at most limit of them and those of
// the same page beyond; 0 means all.
func (u *upload) list(ctx context.Context, after, limit int) ([]storedPart, error) {
	byNumber := map[int][]backends.Part{}
	keep := func(p backends.Part) { byNumber[p.Number] = append(byNumber[p.Number], p) }
	last, err := u.eachStored(ctx, after, limit, keep)
	if err != nil {
		return nil, err
	}
	f, err := u.readFolder(ctx, after, last)
	if err != nil {
		return nil, err
	}
	for _, p := range f.staged {
		keep(p)
	}
	parts := make([]storedPart, 0, len(byNumber))
	for number, attempts := range byNumber {
		part, err := u.choose(attempts, f.tokens[number])
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	slices.SortFunc(parts, func(a, b storedPart) int { return cmp.Compare(a.Number, b.Number) })
	return parts, nil
}

// choose finds the attempt at a number that counts, of one in the backend and one that
// is staged: the later. One whose token is kept comes before any without: that may be the
// last part with a tail, of a Complete that ended there.
func (u *upload) choose(attempts []backends.Part, tokens []string) (newest storedPart, err error) {
	slices.SortStableFunc(attempts, func(a, b backends.Part) int { return b.Modified.Compare(a.Modified) })
	for i, p := range attempts {
		part, partErr := u.withToken(p, tokens)
		if part.Bound {
			return part, partErr
		}
		if i == 0 {
			newest, err = part, partErr
		}
	}
	return newest, err
}

// isPart tells a client's part from what a Complete stored that did not end: a tail,
// which is shorter than any of them, or the highest number, which never comes here by itself.
func isPart(p backends.Part) bool {
	return p.Number < MaxPartNumber && p.Size >= sealed.MessageSize(sealed.MinPartSize)
}

// eachStored reads the clients' parts that the backend holds. It returns the number up
// to which it has read: MaxPartNumber at the end.
func (u *upload) eachStored(ctx context.Context, after, limit int, keep func(backends.Part)) (last int, err error) {
	for n := 0; ; {
		page, err := u.mp.ListParts(ctx, u.backendID(), after, 0)
		if err != nil {
			return 0, err
		}
		for _, p := range page.Parts {
			if isPart(p) {
				keep(p)
			}
		}
		n += len(page.Parts)
		if after = page.Next; after == 0 {
			return MaxPartNumber, nil
		}
		if limit > 0 && n > limit {
			return after, nil
		}
	}
}

// readFolder reads staged parts and tokens of the numbers above after, up to last.
func (u *upload) readFolder(ctx context.Context, after, last int) (folder, error) {
	f := folder{tokens: map[int][]string{}}
	dir := sealed.StashDir(u.ID)
	opts := backends.ListOptions{Prefix: dir, After: u.afterPart(after)}
	for {
		page, err := u.store.List(ctx, u.Bucket.StoreName, &opts)
		if err != nil {
			return f, err
		}
		for _, e := range page.Entries {
			digits, token, kept := strings.Cut(strings.TrimPrefix(e.Key, dir), ".")
			number, err := strconv.Atoi(digits)
			switch {
			case err != nil: // the stash
				continue
			case number > last:
				return f, nil
			case kept:
				f.tokens[number] = append(f.tokens[number], token)
			default:
				f.staged = append(f.staged, backends.Part{Number: number, ETag: e.ETag, Size: e.Size, Modified: e.Modified})
			}
		}
		if !page.Truncated {
			return f, nil
		}
		opts.Token = page.Token
	}
}

// withToken finds the token that was given for just this part. Others are of earlier
// attempts at the number.
func (u *upload) withToken(p backends.Part, tokens []string) (storedPart, error) {
	n, ok := messagePlain(p.Size)
	if !ok {
		return storedPart{}, fmt.Errorf("%w: part %d is stored in %d bytes", sealed.ErrCorrupt, p.Number, p.Size)
	}
	at := sealed.TokenPlace{UploadID: u.ID, Number: p.Number, ETag: p.ETag}
	for _, token := range tokens {
		part, err := u.suite.OpenToken(u.stash.DEK, at, token)
		if err != nil || part.Length != n {
			continue
		}
		etag, err := sealed.JoinETag(u.stash.DEK, at, part)
		return storedPart{Part: p, ETag: etag, Sealed: part, Bound: true}, err
	}
	return storedPart{Part: p, ETag: visibleETag(p.ETag), Sealed: sealed.Part{Number: p.Number, Length: n}}, nil
}

// messagePlain inverts sealed.MessageSize.
func messagePlain(stored int64) (int64, bool) {
	n := stored - sealed.MessageSize(0)
	n -= n / sealed.SealedChunkSize * sealed.TagSize
	return n, n >= 0 && sealed.MessageSize(n) == stored
}
