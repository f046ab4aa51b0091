package sealed

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The plaintext of a trailer (§4): H and one entry for each part, in bytes.
const (
	tableHeadSize  = 104
	entrySize      = 32
	trailerVersion = 1
	flagCRC        = 1
	flagMD5        = 2
	maxChecksum    = 64
	md5At          = 100 - md5Size // in H: the end of the room for a checksum
	// MaxBesideMD5 is the longest checksum, in bytes, that a trailer can carry beside an MD5.
	MaxBesideMD5 = maxChecksum - md5Size
)

// Part is one part of an object as it goes into the trailer and the token.
type Part struct {
	Number int    // 1 to MaxParts; 0 is the only part of a Single object
	Length int64  // plaintext bytes
	Salt   Salt   // of its message; zero: unbound (§6)
	CRC    uint64 // CRC64NVME of its plaintext
	HasCRC bool   // whether CRC is known; it is not for an unbound part
	// Checksum is that of its plaintext by the upload's algorithm, at most 64 bytes, for the token to carry; nil if none.
	Checksum []byte
}

// Tail is all that follows the parts of an object: zeros || T || footer (§4). It can be read often and concurrently.
type Tail struct {
	zeros int64
	end   []byte // T || footer
	crc   uint64
	known bool
	plain int64
}

// NewTail builds the tail of an object of kind Multipart from all its parts, in order. It fails with ErrPartNumber,
// ErrPartOrder or ErrPartSize, and with ErrRange for no parts, too many, or too long ones.
// late is the object's checksum, for it is not known when the envelope is sealed; nil if there is none. md5 are 16 bytes, the
// MD5 of the MD5s of the parts, or nil: with it, late has at most MaxBesideMD5 bytes.
// Where the last part was staged, its sealed bytes followed by the tail become one part of the backend's.
func (s Suite) NewTail(dek Key, parts []Part, late *Checksum, md5 []byte) (*Tail, error) {
	if err := checkParts(parts); err != nil {
		return nil, err
	}
	return s.newTail(dek, parts, late, md5)
}

func (s Suite) newTail(dek Key, parts []Part, late *Checksum, md5 []byte) (*Tail, error) {
	head, err := encodeLate(late, len(parts))
	if err != nil {
		return nil, err
	}
	length, data := sumParts(parts)
	crc, known := sumCRC(parts)
	plain := encodeTrailer(parts, length, crc, known, head)
	if err := addMD5(plain, late, md5); err != nil {
		return nil, err
	}
	end, err := s.sealMessage(dek, trailerContext(), plain)
	if err != nil {
		return nil, err
	}
	zeros := Size(length) - data - int64(len(end)) - footerSize
	end = binary.BigEndian.AppendUint32(end, uint32(len(end)))
	return &Tail{zeros: zeros, end: append(end, footerText...), crc: crc, known: known, plain: length}, nil
}

// Length is the plaintext length of the object in bytes.
func (t *Tail) Length() int64 { return t.plain }

// CRC is the CRC64NVME of the object's plaintext; ok is false if that of a part is not known.
func (t *Tail) CRC() (crc uint64, ok bool) { return t.crc, t.known }

// Size is the length of the tail in bytes, at most MaxTail.
func (t *Tail) Size() int64 { return t.zeros + int64(len(t.end)) }

// ReadAt implements io.ReaderAt.
func (t *Tail) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off > t.Size() {
		return 0, fmt.Errorf("%w: offset %d of a tail of %d bytes", ErrRange, off, t.Size())
	}
	if off < t.zeros {
		n = int(min(t.zeros-off, int64(len(p))))
		clear(p[:n])
		off += int64(n)
	}
	n += copy(p[n:], t.end[max(0, off-t.zeros):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Reader returns a reader of the whole tail that can also seek.
func (t *Tail) Reader() *io.SectionReader { return io.NewSectionReader(t, 0, t.Size()) }

// checkParts checks what a trailer of kind Multipart demands of its parts.
func checkParts(parts []Part) error {
	if len(parts) < 1 || len(parts) > MaxParts {
		return fmt.Errorf("%w: %d parts", ErrRange, len(parts))
	}
	before := 0
	for i, p := range parts {
		switch {
		case p.Number < 1 || p.Number > MaxParts:
			return fmt.Errorf("%w: %d", ErrPartNumber, p.Number)
		case p.Number <= before:
			return fmt.Errorf("%w: %d after %d", ErrPartOrder, p.Number, before)
		case p.Length < 0 || p.Length > MaxPartSize:
			return fmt.Errorf("%w: part %d of %d bytes", ErrRange, p.Number, p.Length)
		case p.Length < MinPartSize && i < len(parts)-1:
			return fmt.Errorf("%w: part %d of %d bytes", ErrPartSize, p.Number, p.Length)
		}
		before = p.Number
	}
	return nil
}

// sumParts is the length of all parts together, of their plaintext and as stored.
func sumParts(parts []Part) (length, stored int64) {
	for _, p := range parts {
		length += p.Length
		stored += MessageSize(p.Length)
	}
	return length, stored
}

// sumCRC is the CRC of all parts together, if all are known. Most parts are equally long, so one shift serves many.
func sumCRC(parts []Part) (crc uint64, known bool) {
	var shift uint64
	length := int64(-1)
	for _, p := range parts {
		if !p.HasCRC {
			return 0, false
		}
		if p.Length != length {
			length, shift = p.Length, crcShift(p.Length)
		}
		crc = combineCRC(crc, p.CRC, shift)
	}
	return crc, true
}

// encodeLate is the end of H: u8 algorithm, u8 scope, u16 length, value[64] of a checksum.
func encodeLate(late *Checksum, parts int) (b [4 + maxChecksum]byte, err error) {
	if late == nil {
		return b, nil
	}
	if err := late.check(); err != nil {
		return b, err
	}
	if late.Scope == Composite && late.Parts != parts {
		return b, fmt.Errorf("%w: checksum of %d parts for %d", ErrRange, late.Parts, parts)
	}
	b[0], b[1] = byte(late.Algorithm), byte(late.Scope)
	binary.BigEndian.PutUint16(b[2:], uint16(len(late.Value)))
	copy(b[4:], late.Value)
	return b, nil
}

// addMD5 puts an MD5 into H, behind the checksum.
func addMD5(plain []byte, late *Checksum, md5 []byte) error {
	if md5 == nil {
		return nil
	}
	if len(md5) != md5Size || late != nil && len(late.Value) > MaxBesideMD5 {
		return fmt.Errorf("%w: MD5 of %d bytes, or beside too long a checksum", ErrRange, len(md5))
	}
	plain[1] |= flagMD5
	copy(plain[md5At:], md5)
	return nil
}

// decodeLate reads what encodeLate wrote, up to where an MD5 begins. It returns nil for none.
func decodeLate(b []byte, parts int) (*Checksum, error) {
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n > len(b)-4 || !allZero(b[4+n:]) {
		return nil, fmt.Errorf("%w: checksum in the trailer", ErrCorrupt)
	}
	if allZero(b) {
		return nil, nil
	}
	c := &Checksum{Algorithm: Algorithm(b[0]), Scope: Scope(b[1]), Value: append([]byte(nil), b[4:4+n]...)}
	if c.Scope == Composite {
		c.Parts = parts
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: trailer: %s", ErrCorrupt, err.Error())
	}
	return c, nil
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// encodeTrailer is H || entries.
func encodeTrailer(parts []Part, length int64, crc uint64, known bool, late [4 + maxChecksum]byte) []byte {
	b := make([]byte, tableHeadSize, tableHeadSize+entrySize*len(parts))
	b[0] = trailerVersion
	binary.BigEndian.PutUint32(b[4:], uint32(len(parts)))
	binary.BigEndian.PutUint64(b[8:], uint64(length))
	if known {
		b[1] = flagCRC
		binary.BigEndian.PutUint64(b[16:], crc)
	}
	copy(b[32:], late[:])
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(p.Number)<<48|uint64(p.Length))
		b = append(b, p.Salt[:]...)
	}
	return b
}

// trailer is what the plaintext of T says.
type trailer struct {
	length int64
	crc    uint64
	known  bool
	late   *Checksum
	md5    []byte
	parts  []Part
}

// decodeTrailer reads H || entries. All it checks is the encoding.
func decodeTrailer(b []byte) (t trailer, err error) {
	if len(b) < tableHeadSize+entrySize {
		return t, fmt.Errorf("%w: trailer of %d bytes", ErrCorrupt, len(b))
	}
	if b[0] != trailerVersion {
		return t, fmt.Errorf("%w: trailer version %d", ErrUnsupported, b[0])
	}
	n := binary.BigEndian.Uint32(b[4:])
	t.length = int64(binary.BigEndian.Uint64(b[8:]))
	t.crc = binary.BigEndian.Uint64(b[16:])
	t.known = b[1]&flagCRC != 0
	lateEnd := md5At + md5Size
	if b[1]&flagMD5 != 0 {
		t.md5 = append([]byte(nil), b[md5At:lateEnd]...)
		lateEnd = md5At
	}
	reserved := binary.BigEndian.Uint64(b[24:]) | uint64(binary.BigEndian.Uint32(b[100:])) | uint64(binary.BigEndian.Uint16(b[2:])) | uint64(b[1]&^(flagCRC|flagMD5))
	if reserved != 0 || (!t.known && t.crc != 0) || n > MaxParts || len(b) != tableHeadSize+entrySize*int(n) {
		return t, fmt.Errorf("%w: trailer of %d parts in %d bytes", ErrCorrupt, n, len(b))
	}
	if t.late, err = decodeLate(b[32:lateEnd], int(n)); err != nil {
		return t, err
	}
	for b = b[tableHeadSize:]; len(b) > 0; b = b[entrySize:] {
		v := binary.BigEndian.Uint64(b)
		t.parts = append(t.parts, Part{Number: int(v >> 48), Length: int64(v & (1<<48 - 1)), Salt: Salt(b[8:entrySize])})
	}
	return t, nil
}

// openTrailer opens T of an object of either kind and checks that it can describe an object of stored bytes.
func (s Suite) openTrailer(msg []byte, dek Key, kind Kind, stored int64) (t trailer, err error) {
	b, err := s.openMessage(dek, trailerContext(), msg)
	if err != nil {
		return t, fmt.Errorf("%w (trailer)", err)
	}
	if t, err = decodeTrailer(b); err != nil {
		return t, err
	}
	if kind == Multipart {
		err = checkParts(t.parts)
	} else if len(t.parts) != 1 || t.parts[0].Number != 0 || t.parts[0].Salt.IsZero() {
		err = ErrRange
	}
	if err != nil { // by its text alone: to a reader this is no mistake of a client
		return t, fmt.Errorf("%w: trailer: %s", ErrCorrupt, err.Error())
	}
	if length, _ := sumParts(t.parts); length != t.length {
		return t, fmt.Errorf("%w: parts of %d bytes in an object of %d", ErrCorrupt, length, t.length)
	}
	return t, CheckSize(stored, t.length)
}

// findTrailer is T within a suffix of an object of stored bytes.
func findTrailer(suffix []byte, stored int64) ([]byte, error) {
	w, err := TrailerWindow(stored)
	if err != nil {
		return nil, err
	}
	if int64(len(suffix)) > stored || len(suffix) < footerSize {
		return nil, fmt.Errorf("%w: suffix of %d bytes of an object of %d", ErrCorrupt, len(suffix), stored)
	}
	body, footer := suffix[:len(suffix)-footerSize], suffix[len(suffix)-footerSize:]
	size := int64(binary.BigEndian.Uint32(footer))
	if string(footer[4:]) != footerText || size > w.Length-footerSize || size > int64(len(body)) {
		return nil, fmt.Errorf("%w: no trailer at the end", ErrCorrupt)
	}
	return body[int64(len(body))-size:], nil
}
