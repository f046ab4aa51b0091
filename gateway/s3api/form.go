package s3api

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"net/textproto"
	"strings"

	"chatelaine/gateway/sigv4"
)

const (
	// maxFormFields is how much a form may hold before its file, in bytes (S3: 20 KB).
	maxFormFields = 20 << 10
	// maxFormHeld is how much is held in memory of a form from its file on, to find
	// the file's end; of a larger one nothing may follow the file.
	maxFormHeld = 8 << 20
	// maxBoundary is RFC 2046's limit.
	maxBoundary = 70
)

// formReader reads a form (RFC 7578) up to its file, which opens what follows.
type formReader struct {
	src      *counted
	buf      *bufio.Reader
	boundary string
	total    int64 // bytes of the whole form
	budget   int   // bytes that may still come before the file
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func newFormReader(body io.Reader, boundary string, total int64) *formReader {
	src := &counted{r: body}
	return &formReader{src: src, buf: bufio.NewReader(src), boundary: boundary, total: total, budget: maxFormFields}
}

// formFile is the file of a form. Once it is open it is exactly size bytes, and its
// last Read tells whether the form ends as it should.
type formFile struct {
	io.Reader
	form *formReader
	name string
	size int64
}

// read reads the fields before the file, by name in lower case, and finds the file,
// which is not open yet. A form without a file has a nil one.
func (f *formReader) read() (sigv4.Form, *formFile, error) {
	fields := sigv4.Form{}
	if head, err := f.until("--" + f.boundary); err != nil || len(bytes.TrimSpace(head)) > 0 {
		return nil, nil, orMalformed(err)
	}
	for {
		more, err := f.next()
		if err != nil || !more {
			return fields, nil, err
		}
		name, filename, err := f.partHeader()
		if err != nil {
			return nil, nil, err
		}
		if name == "file" {
			return fields, &formFile{form: f, name: filename}, nil
		}
		value, err := f.until("\r\n--" + f.boundary)
		if err != nil {
			return nil, nil, err
		}
		if _, again := fields[name]; again {
			return nil, nil, malformedForm()
		}
		fields[name] = string(value)
	}
}

// next says whether a part follows the boundary that was just read.
func (f *formReader) next() (bool, error) {
	var mark [2]byte
	if _, err := io.ReadFull(f.buf, mark[:]); err != nil {
		return false, orMalformed(err)
	}
	switch string(mark[:]) {
	case "\r\n":
		return true, nil
	case "--":
		return false, nil
	}
	return false, malformedForm()
}

// until reads up to a delimiter, which is dropped.
func (f *formReader) until(delimiter string) ([]byte, error) {
	var read []byte
	for !bytes.HasSuffix(read, []byte(delimiter)) {
		if f.budget--; f.budget < 0 {
			return nil, bad("MaxPostPreDataLengthExceeded", "Your POST request fields preceding the upload file were too large.")
		}
		ch, err := f.buf.ReadByte()
		if err != nil {
			return nil, orMalformed(err)
		}
		read = append(read, ch)
	}
	return read[:len(read)-len(delimiter)], nil
}

// partHeader reads the header of a part: the field's name in lower case, and the
// name of a file.
func (f *formReader) partHeader() (name, filename string, err error) {
	text, err := f.until("\r\n\r\n")
	if err != nil {
		return "", "", err
	}
	r := textproto.NewReader(bufio.NewReader(strings.NewReader(string(text) + "\r\n\r\n")))
	header, err := r.ReadMIMEHeader()
	if err != nil {
		return "", "", malformedForm()
	}
	kind, params, err := mime.ParseMediaType(header.Get("Content-Disposition"))
	if err != nil || kind != "form-data" || params["name"] == "" {
		return "", "", malformedForm()
	}
	return strings.ToLower(params["name"]), baseName(params["filename"]), nil
}

// baseName drops the folders that some browsers send.
func baseName(path string) string { return path[strings.LastIndexAny(path, `/\`)+1:] }

// open finds out how long the file is, and must be called once before it is read. All
// that is left of a small form is held in memory: what follows the file is ignored, as
// on S3. So nobody but who may store it should get here.
func (file *formFile) open() error {
	f := file.form
	delimiter := []byte("\r\n--" + f.boundary)
	left := f.total - f.src.n + int64(f.buf.Buffered())
	if left > maxFormHeld {
		tail := string(delimiter) + "--\r\n"
		file.size = left - int64(len(tail))
		file.Reader = &formStream{src: f.buf, left: file.size, delimiter: delimiter, tail: tail}
		return nil
	}
	const line = "\r\n" // an empty file has no line end of its own
	held := bytes.NewBuffer(make([]byte, 0, max(left, 0)+int64(len(line))+bytes.MinRead))
	held.WriteString(line)
	if _, err := held.ReadFrom(f.buf); err != nil {
		return err
	}
	end := bytes.Index(held.Bytes(), delimiter)
	if end < 0 {
		return malformedForm()
	}
	content := held.Bytes()[len(line):max(end, len(line))]
	file.Reader, file.size = bytes.NewReader(content), int64(len(content))
	return nil
}

// formStream is the file of a large form, which nothing but the form's end may
// follow.
type formStream struct {
	src       io.Reader
	left      int64
	delimiter []byte
	tail      string
	seen      []byte // the last bytes, in which a delimiter may have begun
}

// Read implements io.Reader.
func (s *formStream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.src.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	switch {
	case s.delimited(p[:n]):
		return 0, malformedForm()
	case err != nil:
		return n, orMalformed(err)
	case s.left == 0:
		return n, s.end()
	}
	return n, nil
}

// delimited finds a delimiter within the file: then the file ended there.
func (s *formStream) delimited(p []byte) bool {
	edge := len(s.delimiter) - 1
	seam := append(s.seen, p[:min(len(p), edge)]...)
	if bytes.Contains(seam, s.delimiter) || bytes.Contains(p, s.delimiter) {
		return true
	}
	if len(p) >= edge {
		seam = p
	}
	s.seen = append(make([]byte, 0, 2*edge), seam[max(0, len(seam)-edge):]...)
	return false
}

func (s *formStream) end() error {
	tail, err := io.ReadAll(s.src)
	if err == nil && string(tail) != s.tail {
		err = malformedForm()
	}
	return err
}

func malformedForm() *fault {
	return bad("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data.")
}

// orMalformed is for a form that ends early.
func orMalformed(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // as io.Reader returns them
		return malformedForm()
	}
	return err
}
