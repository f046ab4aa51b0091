package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// writeWhole makes a file that was not there, of all that from yields, or no file. It is
// on the disk when it returns.
func writeWhole(name string, from io.WriterTo) (n int64, err error) {
	if _, err := os.Lstat(name); err == nil {
		return 0, existsAlready(name)
	}
	dir, base := filepath.Split(filepath.Clean(name))
	part, err := os.CreateTemp(dir, "."+base+".partial-*") // with mode 0600
	if err != nil {
		return 0, usageError{err}
	}
	defer func() {
		if removed := os.Remove(part.Name()); !errors.Is(removed, os.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}()
	n, err = from.WriteTo(part)
	if err == nil {
		err = part.Sync()
	}
	if err := errors.Join(err, part.Close()); err != nil {
		return 0, err
	}
	if err := nameFile(part.Name(), name); err != nil {
		return 0, err
	}
	return n, syncFolder(filepath.Dir(name))
}

// nameFile gives a file its name unless there is one of that name. Where the file system
// has no links, another program that makes one in the same moment is not noticed.
func nameFile(part, name string) error {
	err := os.Link(part, name)
	if errors.Is(err, os.ErrExist) {
		return existsAlready(name)
	}
	if err == nil {
		return nil
	}
	if err := os.Rename(part, name); err != nil {
		return fmt.Errorf("naming the plaintext: %w", err)
	}
	return nil
}

func existsAlready(name string) error {
	return advise(usageError{fmt.Errorf("%q is there already", name)}, "choose another name: nothing is written over")
}
