package filestore

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
)

// What a killed process leaves is never visible, it only takes room. The sweeper
// looks once, when a store is opened. Other processes may be at work:
//
//   - a temporary file is flocked by its process, so one that can be locked is nobody's;
//   - a bucket on its way out is nobody's business but the remover's, twice removed is removed;
//   - a bucket or parts on their way in exist for moments, so old ones are nobody's;
//   - parts of an object that has gone may have readers, for as long as grace.
const (
	newFolder = "new-"
	oldFolder = "old-"
	moment    = time.Hour
	grace     = 24 * time.Hour
)

func (s *Store) sweep(ctx context.Context) {
	err := s.sweepTemp(ctx)
	buckets, err2 := s.ListBuckets(ctx)
	for _, b := range buckets {
		err2 = errors.Join(err2, s.sweepUploads(ctx, b.Name), s.sweepParts(ctx, b.Name))
	}
	if err = errors.Join(err, err2); err != nil && ctx.Err() == nil {
		s.log.Warn("sweeping leftovers", zap.String("root", s.root), zap.Error(err))
	}
}

func (s *Store) sweepTemp(ctx context.Context) error {
	names, err := readNames(s.path("tmp"))
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		err = errors.Join(err, s.sweepTempName(name))
	}
	return err
}

func (s *Store) sweepTempName(name string) error {
	path := s.path("tmp", name)
	info, err := os.Lstat(path)
	if err != nil {
		return present(err)
	}
	switch {
	case strings.HasPrefix(name, oldFolder), info.IsDir() && time.Since(info.ModTime()) > moment:
		return os.RemoveAll(path)
	case info.IsDir():
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return present(err)
	}
	defer f.Close()
	// Between its creation and its lock a file is as young as can be.
	if time.Since(info.ModTime()) < time.Minute || !tryLock(f) {
		return nil
	}
	// It may have been renamed into place since: then the name is gone, too.
	return present(os.Remove(path))
}

// sweepUploads takes the notes of completed uploads away.
func (s *Store) sweepUploads(ctx context.Context, bucket string) error {
	uploads, err := s.listUploads(ctx, bucket)
	for _, u := range uploads {
		if _, err2 := s.locked(ctx, u.UploadID, nil); !errors.Is(err2, backends.ErrUploadNotFound) {
			err = errors.Join(err, err2)
		}
	}
	return err
}

// sweepParts removes the parts of uploads and objects that have gone.
func (s *Store) sweepParts(ctx context.Context, bucket string) error {
	ids, err := readNames(s.path("buckets", bucket, "parts"))
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		err = errors.Join(err, s.sweepPartsOf(bucket, id))
	}
	return present(err)
}

func (s *Store) sweepPartsOf(bucket, id string) error {
	dir := s.partsPath(bucket, id)
	info, err := os.Lstat(dir)
	if err != nil || time.Since(info.ModTime()) < grace {
		return present(err)
	}
	note, err := readRecord(dir + "/" + noteName)
	if absent(err) {
		return os.RemoveAll(dir) // it was on its way in, or out
	}
	if err != nil {
		return err
	}
	away := s.path("tmp", oldFolder+id)
	err = s.locks.with(bucket, note.Key, func() error {
		if _, err := os.Lstat(s.uploadPath(bucket, id)); !absent(err) {
			return err
		}
		if used, err := s.slot(bucket, note.Key).uses(id); used || err != nil {
			return err
		}
		return os.Rename(dir, away)
	})
	return errors.Join(err, os.RemoveAll(away))
}

// present drops the error of what is no longer there.
func present(err error) error {
	if absent(err) {
		return nil
	}
	return err
}
