package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
)

// An upload exists while uploads/ID does. Its parts stay where they are when it is
// completed: the object's file then holds the table of them. Whoever changes an
// upload holds the lock of its key, and first makes sure that no process died
// between the two steps of a Complete (see find).

const noteName = "upload" // within parts/ID: whose parts they are

func (s *Store) uploadPath(bucket, id string) string { return s.path("buckets", bucket, "uploads", id) }

func (s *Store) partsPath(bucket, id string) string { return s.path("buckets", bucket, "parts", id) }

func (s *Store) partPath(bucket, id string, number int) string {
	return fmt.Sprintf("%s/%05d", s.partsPath(bucket, id), number)
}

// MaxPut is 16 TiB, the largest file of ext4. A file system that takes less answers
// with ErrTooLarge.
func (*Store) MaxPut() int64 { return 1 << 44 }

// CreateUpload makes the folder of the parts and then the note that makes it an upload.
func (s *Store) CreateUpload(ctx context.Context, bucket, key string, attrs backends.Attributes) (backends.UploadID, error) {
	// IDs grow with time, as backends.PageUploads wants them.
	id := backends.UploadID{Bucket: bucket, Key: key, ID: fmt.Sprintf("%016x%s", time.Now().UnixNano(), randomName()[:16])}
	err := s.admit(ctx, bucket, key, attrs)
	if err == nil {
		err = s.prepareVersion(bucket, &header{Lock: attrs.Lock})
	}
	if err == nil {
		err = s.createUpload(ctx, id, attrs)
	}
	if err != nil {
		return backends.UploadID{}, wrap(err, "creating an upload of", bucket, key)
	}
	return id, nil
}

func (s *Store) createUpload(ctx context.Context, id backends.UploadID, attrs backends.Attributes) error {
	h := newHeader(id.Key, 0, attrs)
	h.ETag, h.Upload = "", id.ID
	t, err := s.stage(ctx, h, backends.Body{})
	if err != nil {
		return err
	}
	defer t.discard()
	dir := s.partsPath(id.Bucket, id.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return gone(err, backends.ErrBucketNotFound)
	}
	note := dir + "/" + noteName
	if err := os.Rename(t.file.Name(), note); err != nil {
		return gone(err, backends.ErrBucketNotFound)
	}
	t.placed = true
	if err := s.settle(dir, s.bucket(id.Bucket)); err != nil {
		return err
	}
	marker := s.uploadPath(id.Bucket, id.ID)
	if err := os.Link(note, marker); err != nil {
		return gone(err, backends.ErrBucketNotFound)
	}
	return s.syncFolder(s.path("buckets", id.Bucket, "uploads"))
}

// gone puts the contract's word for a path that is not there.
func gone(err, word error) error {
	if absent(err) {
		return fmt.Errorf("%w: %w", word, err)
	}
	return err
}

// find reads the note of an upload. The caller holds the key's lock where it is
// about to change the upload. Where the object of the key is made of this upload,
// a process died before it could take the note away: find does that.
func (s *Store) find(id backends.UploadID) (record, error) {
	if err := s.checkBucket(id.Bucket); err != nil {
		return record{}, err
	}
	if strings.Trim(id.ID, "0123456789abcdef") != "" || len(id.ID) != 32 {
		return record{}, backends.ErrUploadNotFound
	}
	note, err := readRecord(s.uploadPath(id.Bucket, id.ID))
	if err != nil {
		return record{}, gone(err, backends.ErrUploadNotFound)
	}
	if note.Key != id.Key {
		return record{}, backends.ErrUploadNotFound
	}
	made, err := readRecord(s.objects(id.Bucket) + "/" + keyPath(id.Key))
	if err == nil && made.Upload == id.ID {
		return record{}, errors.Join(backends.ErrUploadNotFound, s.forgetUpload(id.Bucket, id.ID))
	}
	return note, nil
}

// forgetUpload ends an upload without touching its parts. It may be that there is none.
func (s *Store) forgetUpload(bucket, id string) error {
	if id == "" {
		return nil
	}
	if err := s.unlink(s.uploadPath(bucket, id)); err != nil && !absent(err) {
		return err
	}
	return nil
}

// PutPart stores a part as Put stores an object.
func (s *Store) PutPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	p, err := s.putPart(ctx, id, number, body)
	return p, wrap(err, "putting a part of", id.Bucket, id.Key)
}

func (s *Store) putPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	if err := backends.CheckPartNumber(number); err != nil {
		return backends.Part{}, err
	}
	if _, err := s.locked(ctx, id, nil); err != nil {
		return backends.Part{}, err
	}
	t, err := s.stage(ctx, header{Size: body.Size, ETag: randomName()}, body)
	if err != nil {
		return backends.Part{}, err
	}
	defer t.discard()
	return s.placePart(ctx, id, number, t)
}

// placePart makes a staged file a part of an upload.
func (s *Store) placePart(ctx context.Context, id backends.UploadID, number int, t *staged) (backends.Part, error) {
	_, err := s.locked(ctx, id, func() error {
		return gone(os.Rename(t.file.Name(), s.partPath(id.Bucket, id.ID, number)), backends.ErrUploadNotFound)
	})
	if err != nil {
		return backends.Part{}, err
	}
	t.placed = true
	p := backends.Part{Number: number, ETag: t.ETag, Size: t.Size, Modified: t.modified}
	return p, s.syncFolder(s.partsPath(id.Bucket, id.ID))
}

// locked finds the upload and runs do, which may be nil, under its key's lock.
func (s *Store) locked(ctx context.Context, id backends.UploadID, do func() error) (note record, err error) {
	if err := ctx.Err(); err != nil {
		return note, err
	}
	err = s.locks.with(id.Bucket, id.Key, func() error {
		if note, err = s.find(id); err != nil || do == nil {
			return err
		}
		return do()
	})
	return note, err
}

// Complete writes a table of the parts and makes it the object, in time that does
// not depend on their sizes. Parts that it does not name are removed.
func (s *Store) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	w, err := s.complete(ctx, id, parts, cond)
	return w, wrap(err, "completing an upload of", id.Bucket, id.Key)
}

func (s *Store) complete(ctx context.Context, id backends.UploadID, want []backends.Part, cond backends.Conditions) (backends.Written, error) {
	note, err := s.locked(ctx, id, nil)
	if err != nil {
		return backends.Written{}, err
	}
	parts, err := s.choose(id, want)
	if err != nil {
		return backends.Written{}, err
	}
	h := note.header
	if err := s.prepareVersion(id.Bucket, &h); err != nil {
		return backends.Written{}, err
	}
	t, err := s.stageTable(ctx, h, parts)
	if err != nil {
		return backends.Written{}, err
	}
	defer t.discard()
	w, err := s.slot(id.Bucket, id.Key).commit(ctx, t, func(old record) error {
		// Nobody can change a part or the upload between this and the rename.
		if _, err := s.find(id); err != nil {
			return err
		}
		if _, err := s.choose(id, want); err != nil {
			return err
		}
		return old.check(cond)
	})
	if err != nil {
		return backends.Written{}, err
	}
	s.retire(id, parts)
	return w, nil
}

// choose compares the parts that are named with those that are there.
func (s *Store) choose(id backends.UploadID, want []backends.Part) ([]backends.Part, error) {
	have := make(map[int]backends.Part, len(want))
	for _, w := range want {
		if p, err := s.part(id, w.Number); err == nil {
			have[w.Number] = p
		} else if !absent(err) {
			return nil, err
		}
	}
	return backends.CheckParts(want, have)
}

func (s *Store) part(id backends.UploadID, number int) (backends.Part, error) {
	rec, err := readRecord(s.partPath(id.Bucket, id.ID, number))
	return backends.Part{Number: number, ETag: rec.ETag, Size: rec.Size, Modified: rec.modified}, err
}

// stageTable writes the file that makes an object of parts.
func (s *Store) stageTable(ctx context.Context, h header, parts []backends.Part) (*staged, error) {
	rows := make([]partRow, 0, len(parts))
	for _, p := range parts {
		rows = append(rows, partRow{p.Number, p.Size})
		h.Size += p.Size
	}
	table := encodeTable(rows)
	h.Parts, h.TableCRC = len(parts), checksum(table)
	h.ETag = fmt.Sprintf("%s-%d", randomName(), len(parts))
	return s.stage(ctx, h, backends.Body{Reader: bytes.NewReader(table), Size: int64(len(table))})
}

// retire ends a completed upload. What fails is left to find and to the sweeper.
func (s *Store) retire(id backends.UploadID, used []backends.Part) {
	err := errors.Join(s.forgetUpload(id.Bucket, id.ID), s.syncFolder(s.path("buckets", id.Bucket, "uploads")))
	numbers, err2 := s.partNumbers(id)
	for _, n := range numbers {
		if !slices.ContainsFunc(used, func(p backends.Part) bool { return p.Number == n }) {
			err = errors.Join(err, os.Remove(s.partPath(id.Bucket, id.ID, n)))
		}
	}
	if err = errors.Join(err, err2); err != nil && !absent(err) {
		s.log.Warn("retiring an upload", zap.String("bucket", id.Bucket), zap.String("upload", id.ID), zap.Error(err))
	}
}

// disposeAll is dispose for all that a change has opened.
func (s *Store) disposeAll(bucket string, records []record) {
	for _, r := range records {
		s.dispose(bucket, r)
	}
}

// dispose closes the file of an object. Where that has been replaced or deleted it
// removes the parts, unless somebody still reads them: then the last reader does, or
// the sweeper.
func (s *Store) dispose(bucket string, old record) {
	if !old.exists() {
		return
	}
	defer old.close()
	if linked, err := isLinked(old.file); old.Upload == "" || linked || err != nil {
		return
	}
	dir := s.partsPath(bucket, old.Upload)
	if !tryLock(old.file) {
		now := time.Now()
		os.Chtimes(dir, now, now) //nolint:errcheck // the sweeper's grace begins now; without it, earlier
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		s.log.Warn("removing parts", zap.String("bucket", bucket), zap.String("upload", old.Upload), zap.Error(err))
	}
}

// Abort removes the upload and its parts.
func (s *Store) Abort(ctx context.Context, id backends.UploadID) error {
	_, err := s.locked(ctx, id, func() error { return s.forgetUpload(id.Bucket, id.ID) })
	if err == nil {
		err = errors.Join(s.syncFolder(s.path("buckets", id.Bucket, "uploads")), os.RemoveAll(s.partsPath(id.Bucket, id.ID)))
	}
	return wrap(err, "aborting an upload of", id.Bucket, id.Key)
}

// partNumbers lists the numbers of an upload's parts in order.
func (s *Store) partNumbers(id backends.UploadID) ([]int, error) {
	names, err := readNames(s.partsPath(id.Bucket, id.ID))
	if err != nil {
		return nil, err
	}
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// ListParts reads the names of all parts, and the headers of one page.
func (s *Store) ListParts(ctx context.Context, id backends.UploadID, after, limit int) (*backends.PartsPage, error) {
	_, err := s.locked(ctx, id, nil)
	var parts []backends.Part
	if err == nil {
		parts, err = s.listParts(id, after, limit)
	}
	if err != nil {
		return nil, wrap(err, "listing the parts of an upload of", id.Bucket, id.Key)
	}
	return backends.PageParts(parts, after, limit), nil
}

// listParts reads one part more than a page holds.
func (s *Store) listParts(id backends.UploadID, after, limit int) ([]backends.Part, error) {
	if limit < 1 || limit > backends.MaxPage {
		limit = backends.MaxPage
	}
	numbers, err := s.partNumbers(id)
	if err != nil {
		return nil, gone(err, backends.ErrUploadNotFound)
	}
	var parts []backends.Part
	for _, n := range numbers {
		if n <= after || len(parts) > limit {
			continue
		}
		p, err := s.part(id, n)
		if err != nil {
			return nil, gone(err, backends.ErrUploadNotFound)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// ListUploads reads the notes of all unfinished uploads of the bucket, which are few.
func (s *Store) ListUploads(ctx context.Context, bucket string, opts *backends.ListUploadsOptions) (*backends.UploadsPage, error) {
	err := s.HeadBucket(ctx, bucket)
	var uploads []backends.Upload
	if err == nil {
		uploads, err = s.listUploads(ctx, bucket)
	}
	if err != nil {
		return nil, wrap(err, "listing the uploads of", bucket, "")
	}
	return backends.PageUploads(uploads, opts), nil
}

func (s *Store) listUploads(ctx context.Context, bucket string) ([]backends.Upload, error) {
	ids, err := readNames(s.path("buckets", bucket, "uploads"))
	if err != nil {
		return nil, gone(err, backends.ErrBucketNotFound)
	}
	uploads := make([]backends.Upload, 0, len(ids))
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		note, err := readRecord(s.uploadPath(bucket, id))
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		uploads = append(uploads, backends.Upload{UploadID: backends.UploadID{Bucket: bucket, Key: note.Key, ID: id}, Started: note.modified})
	}
	return uploads, nil
}

// readNames reads the names of a folder, in no order.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}
