// Package backup keeps a snapshot of the KMS's registry in a file that only chosen
// people can open: age (age-encryption.org/v1), for X25519 or SSH keys. Neither the KMS
// nor its HSM is needed to open it.
//
// It refuses to know what the records mean, and where they come from.
package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"chatelaine/kms"
)

// Errors of Read. Each wraps its cause.
var (
	// ErrIdentity: none of the given keys opens the file.
	ErrIdentity = errors.New("no given key opens the backup")
	// ErrDamaged: the file is no backup, is cut, or was changed.
	ErrDamaged = errors.New("backup is damaged")
)

// The plaintext is a line of JSON for the head, one for each record, and one for the
// tail, which makes sure that the snapshot is whole: age alone would not notice that
// its writer stopped early.
type (
	head struct {
		Chatelaine string    `json:"chatelaine"`
		Created    time.Time `json:"created"`
		Revision   int64     `json:"revision"`
	}
	record struct {
		Key   string `json:"key"`
		Value []byte `json:"value"`
	}
	tail struct {
		Records int    `json:"records"`
		Digest  string `json:"digest"` // kms.Snapshot.Digest
	}
	line struct {
		Head   *head   `json:"head,omitempty"`
		Record *record `json:"record,omitempty"`
		Tail   *tail   `json:"tail,omitempty"`
	}
)

const kind = "backup/1"

// maxLine is over the longest record: etcd takes 1.5 MB, base64 makes 2 of it.
const maxLine = 4 << 20

// ParseRecipients reads public keys, one a line: age1..., ssh-ed25519 or ssh-rsa. Empty
// lines and those that begin with # do not count. There must be one.
func ParseRecipients(text string) ([]age.Recipient, error) {
	var out []age.Recipient
	for each := range strings.Lines(text) {
		each = strings.TrimSpace(each)
		if each == "" || strings.HasPrefix(each, "#") {
			continue
		}
		r, err := parseRecipient(each)
		if err != nil { // which quotes the text, and that may be a private key
			return nil, fmt.Errorf("backup: reading recipients: number %d is no public key of age or SSH", len(out)+1)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, errors.New("backup: reading recipients: there is none")
	}
	return out, nil
}

func parseRecipient(text string) (age.Recipient, error) {
	if strings.HasPrefix(text, "ssh-") {
		return agessh.ParseRecipient(text)
	}
	return age.ParseX25519Recipient(text)
}

// ParseIdentities reads private keys: a file of age-keygen, or an SSH key without a
// passphrase. Errors do not show them.
func ParseIdentities(text []byte) ([]age.Identity, error) {
	if bytes.Contains(text, []byte("-----BEGIN")) {
		id, err := agessh.ParseIdentity(text)
		if err != nil {
			return nil, errors.New("backup: reading an SSH key: it is none, is of a kind that age does not know, or has a passphrase")
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("backup: reading age keys: want lines of AGE-SECRET-KEY-1..., or one SSH key")
	}
	return ids, nil
}

// Write writes a snapshot for recipients. The caller syncs and closes out.
func Write(out io.Writer, s kms.Snapshot, to []age.Recipient) error {
	sealed, err := age.Encrypt(out, to...)
	if err == nil {
		err = writeLines(sealed, s)
	}
	if err == nil {
		err = sealed.Close()
	}
	if err != nil {
		return fmt.Errorf("backup: writing: %w", err)
	}
	return nil
}

func writeLines(out io.Writer, s kms.Snapshot) error {
	buffered := bufio.NewWriterSize(out, 64<<10)
	lines := json.NewEncoder(buffered)
	if err := lines.Encode(line{Head: &head{Chatelaine: kind, Created: s.Created, Revision: s.Revision}}); err != nil {
		return err
	}
	for _, item := range s.Items {
		if err := lines.Encode(line{Record: &record{Key: item.Key, Value: item.Value}}); err != nil {
			return err
		}
	}
	if err := lines.Encode(line{Tail: &tail{Records: len(s.Items), Digest: s.Digest()}}); err != nil {
		return err
	}
	return buffered.Flush()
}

// Read opens what Write wrote, as a whole or not at all. ErrIdentity, ErrDamaged.
func Read(in io.Reader, with []age.Identity) (kms.Snapshot, error) {
	s, err := read(in, with)
	if err != nil {
		return kms.Snapshot{}, fmt.Errorf("backup: reading: %w", err)
	}
	return s, nil
}

func read(in io.Reader, with []age.Identity) (kms.Snapshot, error) {
	plain, err := age.Decrypt(in, with...)
	var stranger *age.NoIdentityMatchError
	if errors.As(err, &stranger) {
		return kms.Snapshot{}, ErrIdentity
	}
	if err != nil {
		return kms.Snapshot{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s, err := readLines(plain)
	if err != nil {
		return kms.Snapshot{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return s, nil
}

// readLines reads the plaintext to its end, where age says that it is whole.
func readLines(in io.Reader) (kms.Snapshot, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	var s kms.Snapshot
	var end *tail
	for number := 0; lines.Scan(); number++ {
		l, err := parseLine(lines.Bytes())
		if err != nil {
			return s, err
		}
		switch {
		case end != nil || (number == 0) != (l.Head != nil):
			return s, fmt.Errorf("line %d is not in its place", number+1)
		case l.Head != nil:
			if l.Head.Chatelaine != kind {
				return s, fmt.Errorf("it is of kind %q, want %q", l.Head.Chatelaine, kind)
			}
			s.Created, s.Revision = l.Head.Created, l.Head.Revision
		case l.Record != nil:
			s.Items = append(s.Items, kms.Item{Key: l.Record.Key, Value: l.Record.Value})
		default:
			end = l.Tail
		}
	}
	if err := lines.Err(); err != nil {
		return s, err
	}
	if end == nil || end.Records != len(s.Items) || end.Digest != s.Digest() {
		return s, errors.New("it is not whole")
	}
	return s, nil
}

// parseLine takes a line with exactly one thing in it.
func parseLine(text []byte) (line, error) {
	var l line
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return l, err
	}
	count := 0
	for _, there := range []bool{l.Head != nil, l.Record != nil, l.Tail != nil} {
		if there {
			count++
		}
	}
	if count != 1 || dec.More() {
		return l, errors.New("a line has not one thing in it")
	}
	return l, nil
}
