package filestore

import (
	"os"

	"golang.org/x/sys/unix"
)

// folderID tells a folder from another that had or will have its name: inode
// numbers are used again, so the time of birth belongs to it. Zero is unknown.
type folderID struct {
	dev, ino uint64
	sec      int64
	nsec     uint32
}

func identify(dir string) (folderID, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return folderID{}, &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return folderID{}, nil
	}
	return folderID{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, st.Btime.Sec, st.Btime.Nsec}, nil
}

// startWriting has the kernel begin to write a part of a file, so that the fsync
// at the end has less to wait for. It is a hint and may fail.
func startWriting(f *os.File, offset, length int64) {
	unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE) //nolint:errcheck // a hint
}
