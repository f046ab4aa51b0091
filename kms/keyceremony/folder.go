package keyceremony

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chatelaine/kms"
)

// Files of a ceremony's folder. Beside them lies NAME.sig of each witness.
const (
	RecordFile    = "record.json"
	StatementFile = "statement.txt"
	signatureEnd  = ".sig"
)

// Files is what a ceremony's folder has.
type Files struct {
	Record, Statement []byte
	Signatures        map[string]string // by the file's name without ".sig"
}

// ReadFolder reads a ceremony's folder. What is missing of record and statement is
// ErrNotFound.
func ReadFolder(path string) (Files, error) {
	f := Files{Signatures: map[string]string{}}
	for name, to := range map[string]*[]byte{RecordFile: &f.Record, StatementFile: &f.Statement} {
		text, err := readFile(filepath.Join(path, name))
		if err != nil {
			return f, err
		}
		*to = text
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return f, fmt.Errorf("keyceremony: listing signatures: %w", err)
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), signatureEnd); ok {
			text, err := readFile(filepath.Join(path, e.Name()))
			if err != nil {
				return f, err
			}
			f.Signatures[name] = string(text)
		}
	}
	return f, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxRecord) {
		err = fmt.Errorf("%w: it is no file, or of more than %d bytes", kms.ErrInvalid, maxRecord)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", kms.ErrNotFound, err)
	}
	if err != nil {
		return nil, fmt.Errorf("keyceremony: reading %q: %w", path, err)
	}
	return text, nil
}

// AddSignature writes a witness's signature into the folder. ErrExists when there is
// one already.
func AddSignature(path string, w Witness, signature string) error {
	file, err := create(path, w.Name+signatureEnd)
	if err != nil {
		return err
	}
	return write(file, []byte(signature))
}

// reserved is a folder whose files were made before any key was.
type reserved struct {
	path              string
	made              bool // the folder itself, too
	record, statement *os.File
}

// reserve makes the folder and its files, still empty: what cannot be written is known
// before there is a key. ErrExists when the folder has something.
func reserve(path string) (*reserved, error) {
	entries, err := os.ReadDir(path)
	if len(entries) > 0 {
		return nil, fmt.Errorf("keyceremony: making folder %q: %w: it has %q; each ceremony has a folder of its own", path, kms.ErrExists, entries[0].Name())
	}
	r := &reserved{path: path, made: errors.Is(err, fs.ErrNotExist)}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("keyceremony: making folder: %w", err)
	}
	var err2 error
	r.record, err = create(path, RecordFile)
	r.statement, err2 = create(path, StatementFile)
	if err := errors.Join(err, err2); err != nil {
		return nil, errors.Join(err, r.giveUp())
	}
	return r, nil
}

func create(folder, name string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // G302: nothing of a ceremony is secret
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%w: %w", kms.ErrExists, err)
	}
	if err != nil {
		return nil, fmt.Errorf("keyceremony: writing: %w", err)
	}
	return file, nil
}

// write fills a file, has it reach the disk, and closes it.
func write(file *os.File, text []byte) error {
	_, err := file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("keyceremony: writing %q: %w", file.Name(), err)
	}
	return nil
}

// save writes record and statement.
func (r *reserved) save(record *Record) error {
	text, err := record.encode()
	if err == nil {
		_, err = ParseRecord(text) // what could not be verified is not worth signing
	}
	if err != nil {
		return err
	}
	return errors.Join(write(r.record, text), write(r.statement, record.Statement()))
}

// giveUp takes the files away again.
func (r *reserved) giveUp() error {
	var problems []error
	for _, file := range []*os.File{r.record, r.statement} {
		if file != nil {
			_ = file.Close()
			problems = append(problems, os.Remove(file.Name()))
		}
	}
	if r.made {
		problems = append(problems, os.Remove(r.path))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("keyceremony: taking the files away: %w", err)
	}
	return nil
}

// signatureNames are the names of all signature files, in order.
func (f Files) signatureNames() []string {
	var out []string
	for name := range f.Signatures {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
