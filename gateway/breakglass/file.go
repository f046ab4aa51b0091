package breakglass

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// File is a Source of one object, whose stored bytes lie in a file, under whatever name
// it is asked for.
type File struct {
	Path     string
	Envelope string // the value of the header x-amz-meta-cho1
}

// Get opens the file. Conditions are not looked at.
func (f File) Get(_ context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, fmt.Errorf("breakglass: opening stored bytes: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no file")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("breakglass: opening stored bytes %q: %w", f.Path, err), file.Close())
	}
	size := info.Size()
	off, n := span(size, opts)
	return &backends.Object{
		Info: backends.Info{
			Key: id.Key, Size: size, Modified: info.ModTime(),
			Attributes: backends.Attributes{Metadata: map[string]string{sealed.MetadataName: f.Envelope}},
		},
		Range: backends.Range{Offset: off, Length: n},
		Body:  section{io.NewSectionReader(file, off, n), file},
	}, nil
}

// span is what of an object of so many bytes is asked for.
func span(size int64, opts *backends.GetOptions) (off, n int64) {
	switch {
	case opts == nil || opts.Range == nil:
		return 0, size
	case opts.Range.Offset < 0:
		n = min(size, -opts.Range.Offset)
		return size - n, n
	}
	off = min(opts.Range.Offset, size)
	if n = size - off; opts.Range.Length > 0 {
		n = min(n, opts.Range.Length)
	}
	return off, n
}

type section struct {
	io.Reader
	io.Closer
}
