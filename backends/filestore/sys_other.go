//go:build !linux

package filestore

import "os"

// folderID is always unknown, so that folders are synced at every write.
type folderID struct{ _ byte }

func identify(dir string) (folderID, error) {
	_, err := os.Lstat(dir)
	return folderID{}, err
}

func startWriting(*os.File, int64, int64) {}
