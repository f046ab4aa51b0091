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

// CreateUpload begins a multipart upload. What any gateway needs to serve its
// parts lies sealed beside the objects (FORMAT.md section 6).
func (s *Service) CreateUpload(ctx context.Context, r CreateUploadRequest) (UploadRef, error) {
	if err := checkKey(r.Key); err != nil {
		return UploadRef{}, err
	}
	store, mp, err := s.multiparter(r.Bucket)
	if err != nil {
		return UploadRef{}, err
	}
	bk, err := s.sealingKey(ctx, r.Bucket, store)
	if err != nil {
		return UploadRef{}, err
	}
	upload, err := s.createUpload(ctx, store, mp, bk, r)
	if err == nil {
		err = s.keys.Live(bk.ID) // as guarded.ended
	}
	if err != nil {
		return UploadRef{}, fmt.Errorf("objects: creating an upload of %q: %w", r.Key, err)
	}
	return UploadRef{Bucket: r.Bucket, Key: r.Key, ID: upload.ID}, nil
}

func (s *Service) createUpload(ctx context.Context, store backends.Store, mp backends.Multiparter, bk keys.BucketKey, r CreateUploadRequest) (backends.UploadID, error) {
	dek, err := s.suite.NewDEK()
	if err != nil {
		return backends.UploadID{}, err
	}
	created := s.now()
	attrs, err := s.storedAttributes(r.Bucket, r.Key, bk, sealed.Envelope{
		Kind: sealed.Multipart, DEK: dek, Created: created, Attributes: r.sealedAttributes(),
	}, r.StoreAttributes)
	if err != nil {
		return backends.UploadID{}, err
	}
	upload, err := mp.CreateUpload(ctx, r.Bucket.StoreName, r.Key, attrs)
	if err != nil {
		return upload, err
	}
	stash := sealed.Stash{DEK: dek, Created: created, Algorithm: r.Algorithm.toSealed(), Scope: scopeOf(r.Composite)}
	if err := s.putStash(ctx, store, bk, UploadRef{Bucket: r.Bucket, Key: r.Key, ID: upload.ID}, stash); err != nil {
		return upload, errors.Join(err, mp.Abort(context.WithoutCancel(ctx), upload))
	}
	return upload, nil
}

func (r CreateUploadRequest) sealedAttributes() sealed.Attributes {
	a := r.Attributes.toSealed()
	a.LateMD5 = r.Bucket.MD5 && r.Algorithm.fitsMD5()
	return a
}

func (r UploadRef) stashName() string { return sealed.StashDir(r.ID) + "key" }

// stagedName is where a part lies that waits for Complete (staged).
func (r UploadRef) stagedName(number int) string {
	return fmt.Sprintf("%s%05d", sealed.StashDir(r.ID), number)
}

func (r UploadRef) sealedName() sealed.UploadName {
	return sealed.UploadName{Object: nameOf(r.Bucket, r.Key), UploadID: r.ID}
}

func (r UploadRef) backendID() backends.UploadID {
	return backends.UploadID{Bucket: r.Bucket.StoreName, Key: r.Key, ID: r.ID}
}

type stashKey struct {
	space keys.Space
	id    string
}

func (r UploadRef) cacheKey() stashKey { return stashKey{space: r.Bucket.Space, id: r.ID} }

func (s *Service) putStash(ctx context.Context, store backends.Store, bk keys.BucketKey, r UploadRef, stash sealed.Stash) error {
	data, err := s.suite.SealStash(bk.ID, bk.Key, r.sealedName(), stash)
	if err != nil {
		return err
	}
	return s.putReserved(ctx, r.Bucket, store, r.stashName(), data)
}

// upload is a multipart upload whose stash is open.
type upload struct {
	UploadRef
	store backends.Store
	mp    backends.Multiparter
	suite sealed.Suite
	stash sealed.Stash
	live  func() error
}

// openUpload opens an upload's stash. A cached one (it is kept sealed) saves a
// request for each part; fresh asks the backend whether the upload is still there.
func (s *Service) openUpload(ctx context.Context, r UploadRef, fresh bool) (*upload, error) {
	if err := checkKey(r.Key); err != nil {
		return nil, err
	}
	store, mp, err := s.multiparter(r.Bucket)
	if err != nil {
		return nil, err
	}
	data, ok := s.stashes.Get(r.cacheKey())
	if !ok || fresh {
		if data, err = s.getReserved(ctx, r.Bucket, store, r.stashName(), nil); err != nil {
			return nil, noUpload(err)
		}
		s.stashes.Add(r.cacheKey(), data)
	}
	u := &upload{UploadRef: r, store: store, mp: mp, suite: s.suite}
	return u, s.openStash(ctx, u, data)
}

func (s *Service) openStash(ctx context.Context, u *upload, data []byte) error {
	id, err := sealed.StashKeyID(data)
	if err != nil {
		return fmt.Errorf("objects: opening the stash of an upload of %q: %w", u.Key, err)
	}
	bk, err := s.keys.ByID(ctx, u.Bucket, id)
	if err != nil {
		return fmt.Errorf("objects: finding the key of an upload of %q: %w", u.Key, err)
	}
	u.live = func() error { return s.keys.Live(bk.ID) }
	if u.stash, err = s.suite.OpenStash(data, bk.Key, u.sealedName()); err == nil {
		return nil
	}
	// An upload id with another key's name is one that does not exist; the backend
	// tells that from a stash that was tampered with.
	if _, listErr := u.mp.ListParts(ctx, u.backendID(), 0, 1); errors.Is(listErr, backends.ErrUploadNotFound) {
		return fmt.Errorf("objects: %w", listErr)
	}
	return fmt.Errorf("objects: opening the stash of an upload of %q: %w", u.Key, err)
}

// noUpload says that an upload is not there when its stash is not.
func noUpload(err error) error {
	if errors.Is(err, backends.ErrNotFound) {
		return fmt.Errorf("objects: %w: %w", backends.ErrUploadNotFound, err)
	}
	return err
}

// PutPart seals one part, of at most MaxPut bytes. What cannot be a part of the
// backend's yet waits beside the stash until Complete (staged).
func (s *Service) PutPart(ctx context.Context, r PutPartRequest) (PartResult, error) {
	return s.addPart(ctx, r, true)
}

// addPart makes a part of a client's body, which must keep the upload's rules on
// checksums, or of a copy, which states none.
func (s *Service) addPart(ctx context.Context, r PutPartRequest, sent bool) (PartResult, error) {
	if r.Number < 1 || r.Number > MaxPartNumber {
		return PartResult{}, fmt.Errorf("objects: part %d: %w", r.Number, ErrPartNumber)
	}
	if err := checkPut(r.Key, r.Size); err != nil {
		return PartResult{}, err
	}
	u, err := s.openUpload(ctx, r.UploadRef, staged(r.Number, r.Size))
	if err != nil {
		return PartResult{}, err
	}
	if r.Number == MaxPartNumber && sealed.MessageSize(r.Size) > u.mp.MaxPut()-sealed.MaxTail {
		return PartResult{}, fmt.Errorf("objects: putting %d bytes together with the tail: %w", r.Size, ErrBodyTooLarge)
	}
	if sent {
		if err := u.checkStated(r); err != nil {
			return PartResult{}, err
		}
	}
	result, err := s.putPart(ctx, u, r)
	if err != nil {
		return PartResult{}, fmt.Errorf("objects: putting part %d of %q: %w", r.Number, r.Key, err)
	}
	return result, nil
}

// staged says whether a part waits beside the stash until Complete: one that is too
// small to be any but the last, and the one behind which backends have no number for
// the tail. Complete makes it one part of the backend's together with the tail.
func staged(number int, size int64) bool { return short(size) || number == MaxPartNumber }

// short says whether a part of that many bytes can be the last alone.
func short(size int64) bool { return size < sealed.MinPartSize }

func (s *Service) putPart(ctx context.Context, u *upload, r PutPartRequest) (PartResult, error) {
	body, value := u.checksummed(r)
	sum := func() []byte { return nil }
	if u.hasMD5() {
		body, sum = md5ed(body)
	}
	options, done := s.stream(r.Size)
	defer done()
	sealer, err := s.suite.NewPartSealer(body, r.Size, u.stash.DEK, r.Number, options)
	if err != nil {
		return PartResult{}, err
	}
	defer func() { _ = sealer.Close() }()
	guard := &guarded{src: sealer, live: u.live}
	defer watched(ctx, u.live)()
	etag, err := u.storePart(ctx, r.Number, r.Size, backends.Body{Reader: guard, Size: sealer.Size()})
	if err := guard.ended(err); err != nil {
		return PartResult{}, err
	}
	if r.Number == MaxPartNumber {
		if err := s.stillOpen(ctx, u); err != nil {
			return PartResult{}, err
		}
	}
	part := sealer.Part()
	part.Checksum = slices.Concat(value(), sum())
	at := sealed.TokenPlace{UploadID: u.ID, Number: r.Number, ETag: etag}
	visible, err := sealed.JoinETag(u.stash.DEK, at, part)
	if err != nil {
		return PartResult{}, err
	}
	if err := s.keepToken(ctx, u, at, part); err != nil {
		return PartResult{}, err
	}
	return PartResult{ETag: visible, KEK: u.Bucket.KEK, Checksum: u.checksumOf(part), Unasked: u.asked().Algorithm == ""}, nil
}

// stillOpen looks whether an upload has ended while a part was staged, which takes a
// while where it is large: then nobody else clears it away.
func (s *Service) stillOpen(ctx context.Context, u *upload) error {
	_, err := s.getReserved(ctx, u.Bucket, u.store, u.stashName(), nil)
	if err == nil || !errors.Is(err, backends.ErrNotFound) {
		return err
	}
	return errors.Join(noUpload(err), s.clearUpload(context.WithoutCancel(ctx), u.store, u.UploadRef))
}

func (u *upload) storePart(ctx context.Context, number int, size int64, body backends.Body) (etag string, err error) {
	if !staged(number, size) {
		part, err := u.mp.PutPart(ctx, u.backendID(), number, body)
		return part.ETag, err
	}
	opts := &backends.PutOptions{Attributes: backends.Attributes{ContentType: octetStream}}
	written, err := u.store.Put(ctx, idOf(u.Bucket, u.stagedName(number), ""), body, opts)
	return written.ETag, err
}

// algorithm is the one that the upload was asked for, or S3's default; composite
// says that the object's checksum is made of the parts'.
func (u *upload) algorithm() (a Algorithm, composite bool) {
	asked := u.asked()
	if asked.Algorithm == "" {
		return CRC64NVME, false
	}
	return asked.Algorithm, asked.Composite
}

func (u *upload) asked() UploadChecksum {
	return UploadChecksum{Algorithm: fromSealedAlgorithm(u.stash.Algorithm), Composite: u.stash.Scope == sealed.Composite}
}

// checkStated: a part states the upload's algorithm or, unless the checksum is
// composite, none. Where the upload was asked for none, all goes.
func (u *upload) checkStated(r PutPartRequest) error {
	want, composite := u.algorithm()
	switch {
	case u.stash.Algorithm == sealed.NoChecksum, r.Algorithm == want, r.Algorithm == "" && !composite:
		return nil
	}
	return &ChecksumError{Part: r.Number, Want: want, Got: r.Algorithm, Composite: composite, Err: ErrChecksumAlgorithm}
}

// checksummed makes sure that the part's checksum by the upload's algorithm is
// known in the end. CRC64NVME is known anyway.
func (u *upload) checksummed(r PutPartRequest) (body io.Reader, value func() []byte) {
	algorithm, _ := u.algorithm()
	none := func() []byte { return nil }
	switch {
	case algorithm == CRC64NVME:
		return r.Body, none
	case algorithm == r.Algorithm && r.Value != nil:
		return r.Body, r.Value
	}
	h := &hashing{src: r.Body, h: algorithm.NewHash()}
	return h, func() []byte { return h.h.Sum(nil) }
}

// checksumOf is a part's checksum as clients see it; nil of an unbound part, of
// which none is known.
func (u *upload) checksumOf(p sealed.Part) *Checksum {
	algorithm, _ := u.algorithm()
	switch {
	case !p.HasCRC:
		return nil
	case algorithm == CRC64NVME:
		return &Checksum{Algorithm: algorithm, Value: toBytes(p.CRC, 8)}
	}
	checksum, _ := u.splitSums(p)
	return &Checksum{Algorithm: algorithm, Value: checksum}
}
