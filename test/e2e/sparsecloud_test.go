package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/crc64nvme"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
)

const (
	// keptHead and keptTail are how much is kept of a part, in bytes: what a gateway reads
	// for a range across the border of two parts.
	keptHead = 17 << 10
	keptTail = 34 << 10
)

// sparseCloud speaks S3, as far as the gateway does, with S3's limits on parts. It
// verifies the checksum of every byte of a part and keeps its two ends alone, but for some
// parts that it keeps whole: so an object of 10,000 parts needs half a gigabyte of memory.
// A request for anything else fails, and the test with it. What comes in one PUT it keeps.
type sparseCloud struct {
	t     *testing.T
	small *memstore.Store
	whole map[int]bool // numbers of parts

	mu      sync.Mutex
	uploads map[string]*sparseUpload // by id
	objects map[string]*sparseObject // those of parts, by path
}

type sparseUpload struct {
	path  string
	meta  http.Header
	parts map[int]sparsePart
}

type sparsePart struct {
	backends.Part
	head, tail []byte // overlapping where all is kept
}

type sparseObject struct {
	etag     string
	meta     http.Header
	size     int64
	modified time.Time
	parts    []sparsePart
}

// newSparseCloud serves one until the test ends.
func newSparseCloud(t *testing.T, whole ...int) (*sparseCloud, cloud) {
	t.Helper()
	s := &sparseCloud{t: t, small: memstore.New(), whole: map[int]bool{}, uploads: map[string]*sparseUpload{}, objects: map[string]*sparseObject{}}
	for _, n := range whole {
		s.whole[n] = true
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, cloud{
		url: "s3+" + server.URL, dir: t.TempDir(),
		env: []string{"CHATELAINE_BACKEND_ACCESS_KEY_ID=sparse", "CHATELAINE_BACKEND_SECRET_ACCESS_KEY=sparse-secret"},
	}
}

// errSparse: a test reads more of a part than is kept.
var errSparse = errors.New("this cloud did not keep that")

func (s *sparseCloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	do := s.ofObject
	if key == "" {
		do = s.ofBucket
	}
	err := do(w, r, backends.ObjectID{Bucket: bucket, Key: key})
	if err == nil {
		return
	}
	status, code := http.StatusInternalServerError, "InternalError"
	for _, known := range []struct {
		err    error
		status int
		code   string
	}{
		{backends.ErrNotFound, 404, "NoSuchKey"},
		{backends.ErrBucketNotFound, 404, "NoSuchBucket"},
		{backends.ErrUploadNotFound, 404, "NoSuchUpload"},
		{backends.ErrBucketExists, 409, "BucketAlreadyOwnedByYou"},
		{backends.ErrPrecondition, 412, "PreconditionFailed"},
		{backends.ErrInvalidPart, 400, "InvalidPart"},
		{backends.ErrTooSmall, 400, "EntityTooSmall"},
		{backends.ErrUnsupported, 501, "NotImplemented"},
	} {
		if errors.Is(err, known.err) {
			status, code = known.status, known.code
		}
	}
	if status == http.StatusInternalServerError && r.Context().Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		s.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%d</Message></Error>", code, status)
}

func (s *sparseCloud) ofBucket(w http.ResponseWriter, r *http.Request, id backends.ObjectID) error {
	query := r.URL.Query()
	switch {
	case id.Bucket == "":
		return answerXML(w, struct {
			XMLName xml.Name `xml:"ListAllMyBucketsResult"`
			Buckets struct{}
		}{})
	case r.Method == http.MethodPut && r.URL.RawQuery == "":
		return s.small.CreateBucket(r.Context(), id.Bucket)
	case r.Method == http.MethodHead:
		return s.small.HeadBucket(r.Context(), id.Bucket)
	case r.Method == http.MethodGet && query.Has("list-type"):
		return s.list(w, r, id.Bucket)
	}
	return fmt.Errorf("%w: %s %s", backends.ErrUnsupported, r.Method, r.URL)
}

func (s *sparseCloud) ofObject(w http.ResponseWriter, r *http.Request, id backends.ObjectID) error {
	query := r.URL.Query()
	upload := query.Has("uploadId")
	switch {
	case r.Method == http.MethodPost && query.Has("uploads"):
		return s.create(w, r)
	case r.Method == http.MethodPut && upload:
		return s.putPart(w, r)
	case r.Method == http.MethodGet && upload:
		return s.listParts(w, r)
	case r.Method == http.MethodPost && upload:
		return s.complete(w, r)
	case r.Method == http.MethodPut && len(query) <= 1:
		return s.put(w, r, id)
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		return s.get(w, r, id)
	case r.Method == http.MethodDelete && !upload:
		_, err := s.small.Delete(r.Context(), id, nil)
		w.WriteHeader(http.StatusNoContent)
		return err
	}
	return fmt.Errorf("%w: %s %s", backends.ErrUnsupported, r.Method, r.URL)
}

func answerXML(w http.ResponseWriter, document any) error {
	b, err := xml.Marshal(document)
	if err == nil {
		w.Header().Set("Content-Type", "application/xml")
		_, err = w.Write(b)
	}
	return err
}

// readBody takes the framing off a body and verifies its checksum, which it must have.
func readBody(r *http.Request) ([]byte, error) {
	const name = "X-Amz-Checksum-Crc64nvme"
	sum, framed := r.Header.Get(name), bufio.NewReader(r.Body)
	var body []byte
	if r.Header.Get("X-Amz-Content-Sha256") != "STREAMING-UNSIGNED-PAYLOAD-TRAILER" {
		all, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = all
	} else {
		n, err := strconv.Atoi(r.Header.Get("X-Amz-Decoded-Content-Length"))
		if err != nil {
			return nil, err
		}
		body = make([]byte, 0, n)
		if sum, err = unframe(framed, &body); err != nil {
			return nil, err
		}
	}
	h := crc64nvme.New()
	_, _ = h.Write(body)
	if got := base64.StdEncoding.EncodeToString(h.Sum(nil)); got != sum {
		return nil, fmt.Errorf("a body of %d bytes has checksum %s, want %q", len(body), got, sum)
	}
	return body, nil
}

// unframe reads aws-chunks to their end and says the checksum behind them.
func unframe(r *bufio.Reader, body *[]byte) (sum string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", cmp.Or(err, io.ErrUnexpectedEOF)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(line), 16, 32)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		at := len(*body)
		*body = slices.Grow(*body, int(n))[:at+int(n)]
		if _, err := io.ReadFull(r, (*body)[at:]); err != nil {
			return "", err
		}
		if _, err := r.Discard(2); err != nil {
			return "", err
		}
	}
	line, err := r.ReadString('\n')
	_, sum, _ = strings.Cut(strings.TrimSpace(line), ":")
	return sum, err
}

// metadata is what of a request's header belongs to its object.
func metadata(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		if name == "Content-Type" || strings.HasPrefix(name, "X-Amz-Meta-") {
			kept[name] = values
		}
	}
	return kept
}

func (s *sparseCloud) put(w http.ResponseWriter, r *http.Request, id backends.ObjectID) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	opts := backends.PutOptions{Attributes: backends.Attributes{ContentType: r.Header.Get("Content-Type"), Metadata: map[string]string{}}}
	for name, values := range r.Header {
		if name, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok {
			opts.Attributes.Metadata[strings.ToLower(name)] = values[0]
		}
	}
	opts.Conditions.IfNoneMatch, opts.Conditions.IfMatch = tags(r.Header["If-None-Match"]), tags(r.Header["If-Match"])
	written, err := s.small.Put(r.Context(), id, backends.Body{Reader: bytes.NewReader(body), Size: int64(len(body))}, &opts)
	w.Header().Set("ETag", `"`+written.ETag+`"`)
	return err
}

// object is one of parts, or nil.
func (s *sparseCloud) object(path string) *sparseObject {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[path]
}

func tags(values []string) (out []string) {
	for _, v := range values {
		out = append(out, strings.Trim(v, `"`))
	}
	return out
}

func (s *sparseCloud) get(w http.ResponseWriter, r *http.Request, id backends.ObjectID) error {
	o := s.object(r.URL.Path)
	if o == nil {
		return s.getSmall(w, r, id)
	}
	if want := tags(r.Header["If-Match"]); want != nil && want[0] != o.etag {
		return backends.ErrPrecondition
	}
	maps.Copy(w.Header(), o.meta)
	from, n := spanOf(r.Header.Get("Range"), o.size)
	describe(w, o.etag, o.modified, n, from, o.size)
	if r.Method == http.MethodHead {
		return nil
	}
	if r.Header.Get("Range") != "" {
		w.WriteHeader(http.StatusPartialContent)
	}
	return o.write(w, from, n)
}

func (s *sparseCloud) getSmall(w http.ResponseWriter, r *http.Request, id backends.ObjectID) error {
	o, err := s.small.Get(r.Context(), id, &backends.GetOptions{Conditions: backends.Conditions{IfMatch: tags(r.Header["If-Match"])}})
	if err != nil {
		return err
	}
	defer o.Body.Close()
	all, err := io.ReadAll(o.Body)
	if err != nil {
		return err
	}
	for name, value := range o.Attributes.Metadata {
		w.Header().Set("X-Amz-Meta-"+name, value)
	}
	w.Header().Set("Content-Type", o.Attributes.ContentType)
	w.Header().Set("ETag", `"`+o.ETag+`"`)
	http.ServeContent(w, r, "", o.Modified, bytes.NewReader(all))
	return nil
}

func describe(w http.ResponseWriter, etag string, modified time.Time, n, from, size int64) {
	w.Header().Set("ETag", `"`+etag+`"`)
	w.Header().Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	if n != size {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+n-1, size))
	}
}

// spanOf reads a Range of the forms that the gateway sends.
func spanOf(header string, size int64) (from, n int64) {
	first, last, _ := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	from, fromErr := strconv.ParseInt(first, 10, 64)
	to, toErr := strconv.ParseInt(last, 10, 64)
	switch {
	case header == "":
		return 0, size
	case fromErr != nil: // the last bytes
		return max(0, size-to), min(size, to)
	case toErr != nil:
		return from, size - from
	}
	return from, min(to+1, size) - from
}

// write answers with stored bytes, all of which must have been kept.
func (o *sparseObject) write(w io.Writer, from, n int64) error {
	for _, p := range o.parts {
		if from < p.Size && n > 0 {
			piece, err := p.cut(from, min(n, p.Size-from))
			if err != nil {
				return err
			}
			if _, err := w.Write(piece); err != nil {
				return nil // the gateway has what it wanted
			}
			n -= int64(len(piece))
			from = p.Size
		}
		from -= p.Size
	}
	return nil
}

func (p sparsePart) cut(from, n int64) ([]byte, error) {
	tail := p.Size - int64(len(p.tail))
	switch {
	case from+n <= int64(len(p.head)):
		return p.head[from : from+n], nil
	case from >= tail:
		return p.tail[from-tail : from-tail+n], nil
	}
	return nil, fmt.Errorf("%w: %d bytes from %d of part %d", errSparse, n, from, p.Number)
}

func (s *sparseCloud) create(w http.ResponseWriter, r *http.Request) error {
	id := rand.Text()
	s.mu.Lock()
	s.uploads[id] = &sparseUpload{path: r.URL.Path, meta: metadata(r.Header), parts: map[int]sparsePart{}}
	s.mu.Unlock()
	return answerXML(w, struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		UploadId string   //nolint:revive // S3's name
	}{UploadId: id})
}

// upload runs do with the upload that a request is about.
func (s *sparseCloud) upload(r *http.Request, do func(u *sparseUpload) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[r.URL.Query().Get("uploadId")]
	if u == nil || u.path != r.URL.Path {
		return backends.ErrUploadNotFound
	}
	return do(u)
}

func (s *sparseCloud) putPart(w http.ResponseWriter, r *http.Request) error {
	number, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
	if err != nil || number < 1 || number > 10000 {
		return fmt.Errorf("%w: number %d", backends.ErrInvalidPart, number)
	}
	body, err := readBody(r)
	if err != nil {
		return err
	}
	p := sparsePart{Part: backends.Part{Number: number, ETag: strings.ToLower(rand.Text()), Size: int64(len(body)), Modified: time.Now()}}
	head, tail := keptHead, keptTail
	if s.whole[number] || len(body) < head+tail {
		head, tail = len(body), len(body)
	}
	p.head, p.tail = bytes.Clone(body[:head]), bytes.Clone(body[len(body)-tail:])
	w.Header().Set("ETag", `"`+p.ETag+`"`)
	return s.upload(r, func(u *sparseUpload) error {
		u.parts[number] = p
		return nil
	})
}

// partXML is a part in the documents of ListParts and Complete.
type partXML struct {
	PartNumber   int
	LastModified string `xml:",omitempty"`
	ETag         string
	Size         int64
}

func (s *sparseCloud) listParts(w http.ResponseWriter, r *http.Request) error {
	after, _ := strconv.Atoi(r.URL.Query().Get("part-number-marker"))
	limit, err := strconv.Atoi(r.URL.Query().Get("max-parts"))
	if err != nil || limit > 1000 {
		limit = 1000
	}
	out := struct {
		XMLName              xml.Name `xml:"ListPartsResult"`
		UploadId             string   //nolint:revive // S3's name
		NextPartNumberMarker int
		IsTruncated          bool
		Part                 []partXML
	}{UploadId: r.URL.Query().Get("uploadId")}
	err = s.upload(r, func(u *sparseUpload) error {
		for _, n := range slices.Sorted(maps.Keys(u.parts)) {
			if n <= after {
				continue
			}
			if len(out.Part) == limit {
				out.IsTruncated = true
				break
			}
			p := u.parts[n]
			out.Part = append(out.Part, partXML{n, p.Modified.UTC().Format(time.RFC3339Nano), p.ETag, p.Size})
			out.NextPartNumberMarker = n
		}
		return nil
	})
	if err != nil {
		return err
	}
	return answerXML(w, out)
}

func (s *sparseCloud) complete(w http.ResponseWriter, r *http.Request) error {
	var list struct{ Part []partXML }
	if err := xml.NewDecoder(r.Body).Decode(&list); err != nil {
		return err
	}
	etag := ""
	err := s.upload(r, func(u *sparseUpload) error {
		if r.Header.Get("If-None-Match") == "*" && s.objects[u.path] != nil {
			return backends.ErrPrecondition
		}
		var want []backends.Part
		have := map[int]backends.Part{}
		for _, p := range list.Part {
			want = append(want, backends.Part{Number: p.PartNumber, ETag: strings.Trim(p.ETag, `"`)})
		}
		for n, p := range u.parts {
			have[n] = p.Part
		}
		parts, err := backends.CheckParts(want, have)
		if err != nil {
			return err
		}
		o := &sparseObject{etag: fmt.Sprintf("%s-%d", strings.ToLower(rand.Text()), len(parts)), meta: u.meta, modified: time.Now()}
		for _, p := range parts {
			o.parts, o.size = append(o.parts, u.parts[p.Number]), o.size+p.Size
		}
		s.objects[u.path], etag = o, o.etag
		delete(s.uploads, r.URL.Query().Get("uploadId"))
		return nil
	})
	if err != nil {
		return err
	}
	return answerXML(w, struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		ETag    string
	}{ETag: `"` + etag + `"`})
}

// rowXML is a row of a listing.
type rowXML struct {
	Key          string
	LastModified string
	ETag         string
	Size         int64
}

// list shows what came in one PUT alone.
func (s *sparseCloud) list(w http.ResponseWriter, r *http.Request, bucket string) error {
	query := r.URL.Query()
	limit, _ := strconv.Atoi(query.Get("max-keys"))
	page, err := s.small.List(r.Context(), bucket, &backends.ListOptions{
		Prefix: query.Get("prefix"), Delimiter: query.Get("delimiter"), After: query.Get("start-after"), Limit: limit, Token: query.Get("continuation-token"),
	})
	if err != nil {
		return err
	}
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Name                  string
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []rowXML
	}{Name: bucket, IsTruncated: page.Truncated, NextContinuationToken: page.Token}
	for _, e := range page.Entries {
		out.Contents = append(out.Contents, rowXML{e.Key, e.Modified.UTC().Format(time.RFC3339Nano), `"` + e.ETag + `"`, e.Size})
	}
	return answerXML(w, out)
}
