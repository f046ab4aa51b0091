package sigv4

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
)

const (
	// MinChunk is the smallest chunk that may be followed by another, in bytes.
	MinChunk = 8 << 10

	maxLine     = 512      // bytes of a chunk's header or of a trailer's line
	maxTrailers = 8        // lines
	maxExcess   = 64 << 10 // bytes beyond the declared length that are still parsed

	signatureName = "x-amz-trailer-signature"
)

// chunked reads aws-chunked (S3 API Reference, "Signature Calculations for the
// Authorization Header: Transferring Payload in Multiple Chunks"):
//
//	hex-size [";chunk-signature=" hex-signature] CRLF data CRLF ...
//	"0" [";chunk-signature=" hex-signature] CRLF *(name ":" value CRLF) CRLF
//
// A malformed frame is reported before a wrong length, and that before a wrong
// trailer, as AWS does.
type chunked struct {
	in       input
	chain    *chain // nil where chunks are not signed
	declared []string
	trailer  map[string]string
	signed   bool // the trailer is signed too

	left   int64 // of the current chunk
	open   bool  // a chunk was begun and its end not read
	small  bool  // the last chunk was below MinChunk
	last   bool  // the chunk of size 0 was read
	excess int64 // decoded bytes beyond the declared length
}

func newChunked(s *Signed, src io.Reader) *chunked {
	c := &chunked{
		in:       input{src: src},
		declared: s.Trailers,
		trailer:  make(map[string]string),
		signed:   s.Payload == PayloadChunksTrailer,
	}
	if s.Payload.signed() {
		c.chain = newChain(s)
	}
	return c
}

// read returns decoded bytes of one chunk.
func (c *chunked) read(p []byte) (int, error) {
	if err := c.advance(); err != nil {
		return 0, err
	}
	if c.last { // before the declared length: see what is wrong with the rest first
		if err := c.in.end(c); err != nil {
			return 0, err
		}
		return 0, &Error{Err: ErrLength}
	}
	return c.readData(p)
}

func (c *chunked) readData(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.in.read(p)
	if c.chain != nil {
		c.chain.sum.Write(p[:n])
	}
	c.left -= int64(n)
	if err == nil && c.left == 0 {
		err = c.closeChunk()
	}
	return n, err
}

// finish expects the end of the current chunk and the last one. Chunks that
// should not be there are read, up to maxExcess, to tell a false length from a
// broken frame; their bytes go nowhere.
func (c *chunked) finish() error {
	for !c.last {
		if c.open {
			if err := c.skip(); err != nil {
				return err
			}
		}
		if err := c.advance(); err != nil {
			return err
		}
	}
	return c.in.end(c)
}

func (c *chunked) skip() error {
	var scratch [maxLine]byte
	for c.open {
		n, err := c.readData(scratch[:])
		if c.excess += int64(n); c.excess > maxExcess {
			return &Error{Err: ErrLength}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// advance reads the header of the next chunk, unless one is open.
func (c *chunked) advance() error {
	if c.open || c.last {
		return nil
	}
	line, err := c.in.line()
	if err != nil {
		return err
	}
	size, sig, err := c.parseHeader(line)
	if err != nil {
		return err
	}
	if c.chain != nil {
		c.chain.claim(sig)
	}
	if size == 0 {
		c.last = true
		return c.verify()
	}
	if c.small {
		return &Error{Err: ErrChunkSize}
	}
	c.left, c.open, c.small = size, true, size < MinChunk
	return nil
}

// parseHeader splits a chunk's header. Signed chunks have exactly one extension,
// others none.
func (c *chunked) parseHeader(line []byte) (size int64, sig []byte, err error) {
	digits := line
	if c.chain != nil {
		const extension = ";chunk-signature="
		at := bytes.Index(line, []byte(extension))
		if at < 0 || len(line) != at+len(extension)+signatureSize {
			return 0, nil, &Error{Err: ErrIncomplete}
		}
		digits, sig = line[:at], line[at+len(extension):]
		if !isHex(sig) {
			return 0, nil, &Error{Err: ErrIncomplete}
		}
	}
	size, ok := parseSize(digits)
	if !ok {
		return 0, nil, &Error{Err: ErrIncomplete}
	}
	return size, sig, nil
}

// closeChunk reads the line end after a chunk's data and checks its signature.
func (c *chunked) closeChunk() error {
	line, err := c.in.line()
	if err != nil {
		return err
	}
	if len(line) != 0 {
		return &Error{Err: ErrIncomplete}
	}
	c.open = false
	return c.verify()
}

func (c *chunked) verify() error {
	if c.chain == nil || c.chain.verify() {
		return nil
	}
	return &Error{Err: ErrSignature}
}

// parseSize reads 1 to 15 hexadecimal digits and no sign.
func parseSize(digits []byte) (int64, bool) {
	if len(digits) == 0 || len(digits) > 15 {
		return 0, false
	}
	var n int64
	for _, d := range digits {
		v := hexValue(d)
		if v < 0 {
			return 0, false
		}
		n = n<<4 | int64(v)
	}
	return n, true
}

func hexValue(d byte) int {
	switch {
	case '0' <= d && d <= '9':
		return int(d - '0')
	case 'a' <= d && d <= 'f':
		return int(d-'a') + 10
	case 'A' <= d && d <= 'F':
		return int(d-'A') + 10
	}
	return -1
}

func isHex(b []byte) bool {
	for _, d := range b {
		if hexValue(d) < 0 {
			return false
		}
	}
	return true
}

// readTrailer reads the lines after the last chunk. Some clients end a trailer's
// line with LF alone and put an empty line before the trailer's signature; both
// are taken.
func (c *chunked) readTrailer() error {
	var signature string
	var raw []byte // as it is signed
	for range maxTrailers {
		line, err := c.in.trailerLine()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			if c.signed && signature == "" && len(raw) > 0 {
				continue
			}
			return c.checkTrailer(raw, signature)
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || signature != "" {
			return &Error{Err: ErrIncomplete}
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if name == signatureName && c.signed {
			signature = value
			continue
		}
		value = strings.TrimSpace(value)
		raw = append(raw, name+":"+value+"\n"...)
		if _, again := c.trailer[name]; again {
			return &Error{Err: ErrTrailer}
		}
		c.trailer[name] = value
	}
	return &Error{Err: ErrTrailer}
}

// checkTrailer verifies the trailer's signature, the length of the whole, and that
// the trailer holds exactly what was declared.
func (c *chunked) checkTrailer(raw []byte, signature string) error {
	if len(raw) == 0 && signature == "" && len(c.declared) > 0 {
		return &Error{Err: ErrTrailer} // whatever may still follow
	}
	if c.signed && (len(raw) > 0 || signature != "") {
		if len(signature) != signatureSize || !isHex([]byte(signature)) {
			return &Error{Err: ErrIncomplete}
		}
		if !c.chain.verifyTrailer(raw, signature) {
			return &Error{Err: ErrSignature}
		}
	}
	if c.excess > 0 {
		return &Error{Err: ErrLength}
	}
	return nil
}

// matchTrailer compares what came with what x-amz-trailer promised.
func (c *chunked) matchTrailer() error {
	if len(c.trailer) != len(c.declared) {
		return &Error{Err: ErrTrailer}
	}
	for name, value := range c.trailer {
		if value == "" || !slices.Contains(c.declared, name) {
			return &Error{Err: ErrTrailer}
		}
	}
	return nil
}

// input reads lines through a small buffer and data past it.
type input struct {
	src  io.Reader
	buf  [maxLine]byte
	r, w int
}

// read takes what the buffer holds, then goes to the source directly.
func (in *input) read(p []byte) (int, error) {
	if in.r < in.w {
		n := copy(p, in.buf[in.r:in.w])
		in.r += n
		return n, nil
	}
	n, err := in.src.Read(p)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, cutShort(err)
}

// line returns the next line without its CRLF, valid until the next call. A line
// that ends in LF alone, or is too long, is malformed.
func (in *input) line() ([]byte, error) {
	line, err := in.rawLine()
	if err != nil {
		return nil, err
	}
	n := len(line)
	if n == 0 || line[n-1] != '\r' || bytes.IndexByte(line[:n-1], '\r') >= 0 {
		return nil, &Error{Err: ErrIncomplete}
	}
	return line[:n-1], nil
}

// trailerLine is line, but takes LF alone too.
func (in *input) trailerLine() ([]byte, error) {
	line, err := in.rawLine()
	if err != nil {
		return nil, err
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	if bytes.IndexByte(line, '\r') >= 0 {
		return nil, &Error{Err: ErrIncomplete}
	}
	return line, nil
}

func (in *input) rawLine() ([]byte, error) {
	from := in.r
	for {
		if at := bytes.IndexByte(in.buf[from:in.w], '\n'); at >= 0 {
			line := in.buf[in.r : from+at]
			in.r = from + at + 1
			return line, nil
		}
		in.w = copy(in.buf[:], in.buf[in.r:in.w])
		in.r, from = 0, in.w
		if in.w == len(in.buf) {
			return nil, &Error{Err: ErrIncomplete}
		}
		n, err := in.src.Read(in.buf[in.w:])
		in.w += n
		if n == 0 && err != nil {
			return nil, cutShort(err)
		}
	}
}

// end reads the trailer and makes sure that nothing but a few line ends follows.
func (in *input) end(c *chunked) error {
	if err := c.readTrailer(); err != nil {
		return err
	}
	in.w = copy(in.buf[:], in.buf[in.r:in.w])
	in.r = 0
	for in.w < len(in.buf) && len(bytes.Trim(in.buf[:in.w], "\r\n")) == 0 {
		n, err := in.src.Read(in.buf[in.w:])
		in.w += n
		switch {
		case n > 0:
		case errors.Is(err, io.EOF):
			return c.matchTrailer()
		case err != nil:
			return cutShort(err)
		}
	}
	return &Error{Err: ErrIncomplete}
}

// cutShort makes an end inside the frame an error of this package.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Err: ErrIncomplete}
	}
	return err
}
