package filestore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"chatelaine/backends"
)

// A file begins with a magic, the length of its header and the header's CRC-32C,
// then the header as JSON, then size bytes, which are those that were put. Where
// the header names an upload, the bytes are in that upload's parts, and a table of
// them follows in place of the bytes.
const (
	magic     = "chofile1"
	preamble  = len(magic) + 8
	maxHeader = 64 << 10
	firstRead = 4 << 10 // holds nearly every header
	tableRow  = 12      // u32 number, u64 size
)

var errDamaged = errors.New("file is damaged")

type header struct {
	Key         string            `json:"key,omitempty"` // empty in a part
	Size        int64             `json:"size"`
	ETag        string            `json:"etag,omitempty"` // empty in an upload
	ContentType string            `json:"content_type,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Upload      string            `json:"upload,omitempty"`
	Parts       int               `json:"parts,omitempty"`
	TableCRC    uint32            `json:"table_crc,omitempty"`

	Stamp  backends.Stamp `json:"stamp,omitempty"` // none where the bucket had no versions
	Null   bool           `json:"null,omitempty"`  // written while versions were suspended
	Marker bool           `json:"marker,omitempty"`
	Tags   backends.Tags  `json:"tags,omitempty"`
	Lock   backends.Lock  `json:"lock,omitzero"`

	pad int // spaces behind the JSON
}

// version is what the version is called.
func (h header) version() string {
	if h.Stamp == "" || h.Null {
		return backends.NullVersion
	}
	return string(h.Stamp)
}

// made is the version in the answer to a write: none where the bucket has no versions.
func (h header) made() string {
	if h.Stamp == "" {
		return ""
	}
	return h.version()
}

// newHeader describes an object to be.
func newHeader(key string, size int64, attrs backends.Attributes) header {
	return header{
		Key: key, Size: size, ETag: randomName(), ContentType: attrs.ContentType, Metadata: attrs.Metadata,
		Tags: attrs.Tags, Lock: attrs.Lock,
	}
}

func (h header) attributes() backends.Attributes {
	return backends.Attributes{ContentType: h.ContentType, Metadata: h.Metadata, Lock: h.Lock}
}

// encode returns the bytes that go before the object's.
func (h header) encode() ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return frame(append(text, bytes.Repeat([]byte(" "), h.pad)...))
}

// frame puts the magic, the length and the checksum before a text.
func frame(text []byte) ([]byte, error) {
	if len(text) > maxHeader {
		return nil, fmt.Errorf("%w: a header of %d bytes", backends.ErrTooLarge, len(text))
	}
	b := make([]byte, 0, preamble+len(text))
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, checksum(text))
	return append(b, text...), nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// headerLen returns the length of the JSON that follows the preamble.
func headerLen(b []byte) (int, error) {
	if len(b) < preamble || string(b[:len(magic)]) != magic {
		return 0, fmt.Errorf("%w: no header", errDamaged)
	}
	n := binary.BigEndian.Uint32(b[len(magic):])
	if n > maxHeader {
		return 0, fmt.Errorf("%w: a header of %d bytes", errDamaged, n)
	}
	return int(n), nil
}

// decodeHeader reads what encode has made, of which b is the beginning of a file.
func decodeHeader(b []byte) (h header, size int, err error) {
	if size, err = decode(b, &h); err != nil {
		return h, 0, err
	}
	if h.Size < 0 || h.Parts < 0 || h.Parts > backends.MaxParts {
		return h, 0, fmt.Errorf("%w: a size of %d, %d parts", errDamaged, h.Size, h.Parts)
	}
	return h, size, nil
}

// decode reads a framed JSON text into v, and returns how long it is with its frame.
func decode(b []byte, v any) (size int, err error) {
	n, err := headerLen(b)
	if err != nil {
		return 0, err
	}
	if len(b) < preamble+n {
		return 0, fmt.Errorf("%w: its header is cut short", errDamaged)
	}
	text := b[preamble : preamble+n]
	if checksum(text) != binary.BigEndian.Uint32(b[len(magic)+4:]) {
		return 0, fmt.Errorf("%w: its header does not have its checksum", errDamaged)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return preamble + n, nil
}

// record is an open file of ours. The zero record is a file that is not there.
type record struct {
	header
	file     *os.File
	start    int64 // offset of what follows the header
	modified time.Time
	inPlace  bool   // it is in the objects folder
	damaged  bool   // it has no header
	called   string // its version as answers have it
}

// openRecord opens a file and reads its header. The caller closes it. The error of
// a file that is not there is fs.ErrNotExist.
func openRecord(path string) (record, error) { return openRecordWith(path, make([]byte, firstRead)) }

// openRecordWith is openRecord with the caller's memory to read into.
func openRecordWith(path string, buf []byte) (record, error) {
	f, err := os.Open(path)
	if err != nil {
		return record{}, err
	}
	r := record{file: f}
	if err := r.load(buf); err != nil {
		return record{}, errors.Join(fmt.Errorf("reading %q: %w", path, err), f.Close())
	}
	return r, nil
}

// readRecord is openRecord for those who need no more than the header.
func readRecord(path string) (record, error) {
	r, err := openRecord(path)
	r.close()
	return r, err
}

func (r record) exists() bool { return r.file != nil }

func closeAll(records []record) {
	for _, r := range records {
		r.close()
	}
}

func (r record) close() {
	if r.file != nil {
		r.file.Close()
	}
}

func (r *record) load(buf []byte) error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	b, err := readAt(r.file, buf)
	if err != nil {
		return err
	}
	if n, err := headerLen(b); err == nil && preamble+n > len(b) {
		if b, err = readAt(r.file, make([]byte, preamble+n)); err != nil {
			return err
		}
	}
	var start int
	if r.header, start, err = decodeHeader(b); err != nil {
		return err
	}
	r.start, r.modified = int64(start), info.ModTime()
	if got, want := info.Size(), r.start+r.follows(); got != want {
		return fmt.Errorf("%w: %d bytes, not %d", errDamaged, got, want)
	}
	return nil
}

// follows is the number of bytes behind the header.
func (h header) follows() int64 {
	if h.Parts > 0 {
		return int64(h.Parts) * tableRow
	}
	return h.Size
}

// readAt fills b from the beginning of a file, as far as that goes.
func readAt(f io.ReaderAt, b []byte) ([]byte, error) {
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// info describes the object of a record.
func (r record) info() backends.Info {
	return backends.Info{
		Key: r.Key, Version: r.called, Size: r.Size, ETag: r.ETag, Modified: r.modified,
		TagCount: len(r.Tags), Attributes: r.attributes(),
	}
}

// live is the record as conditions see it: a marker is nothing.
func (r record) live() record {
	if r.Marker {
		return record{}
	}
	return r
}

// check evaluates conditions of a write over the record, which may be none.
func (r record) check(c backends.Conditions) error {
	return c.CheckWrite(r.ETag, r.modified, r.exists())
}

// partRow is a row of the table of parts.
type partRow struct {
	number int
	size   int64
}

func encodeTable(rows []partRow) []byte {
	b := make([]byte, 0, len(rows)*tableRow)
	for _, row := range rows {
		b = binary.BigEndian.AppendUint32(b, uint32(row.number))
		b = binary.BigEndian.AppendUint64(b, uint64(row.size))
	}
	return b
}

// table reads the table of parts.
func (r record) table() ([]partRow, error) {
	b := make([]byte, r.Parts*tableRow)
	if _, err := r.file.ReadAt(b, r.start); err != nil && (len(b) > 0 || !errors.Is(err, io.EOF)) {
		return nil, err
	}
	if checksum(b) != r.TableCRC {
		return nil, fmt.Errorf("%w: its table of parts does not have its checksum", errDamaged)
	}
	rows, left := make([]partRow, 0, r.Parts), r.Size
	for ; len(b) > 0; b = b[tableRow:] {
		row := partRow{int(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint64(b[4:]))}
		if left -= row.size; row.size < 0 || left < 0 {
			return nil, fmt.Errorf("%w: its parts are longer than it", errDamaged)
		}
		rows = append(rows, row)
	}
	if left != 0 {
		return nil, fmt.Errorf("%w: its parts are shorter than it", errDamaged)
	}
	return rows, nil
}

// isThere looks for a path. It costs less than opening what is mostly not there.
func isThere(path string) (bool, error) {
	err := syscall.Access(path, 0)
	if err == nil || absent(err) {
		return err == nil, nil
	}
	return false, &os.PathError{Op: "access", Path: path, Err: err}
}

// absent says that a path is not there.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
