package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
)

// session is a resumable upload. The fake appends whatever comes; Cloud Storage goes by
// offsets, and answers again for an upload that has ended.
type session struct {
	received int64
	sum      uint32 // CRC32C
	last     *httptest.ResponseRecorder
}

// begin remembers the session that the fake makes.
func (f *front) begin(w http.ResponseWriter, r *http.Request) {
	answer := httptest.NewRecorder()
	f.next.ServeHTTP(answer, r)
	if location, err := url.Parse(answer.Header().Get("Location")); err == nil && answer.Code == http.StatusOK {
		f.sessions[location.Query().Get("upload_id")] = &session{}
	}
	replay(w, answer)
}

func replay(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// extent is the Content-Range of a chunk. Total is -1 where it is not known yet, first is
// total where there are no bytes.
func extent(r *http.Request) (first, total int64, err error) {
	span, all, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Content-Range"), "bytes "), "/")
	total = -1
	if all != "*" {
		if _, err = fmt.Sscanf(all, "%d", &total); err != nil {
			return 0, 0, err
		}
	}
	if span == "*" {
		return total, total, nil
	}
	_, err = fmt.Sscanf(span, "%d-", &first)
	return first, total, err
}

func (f *front) chunk(w http.ResponseWriter, r *http.Request, id string, body []byte) {
	s := f.sessions[id]
	first, total, err := extent(r)
	switch {
	case s == nil:
		fail(w, http.StatusNotFound, "notFound", "There is no such session.")
		return
	case s.last != nil:
		replay(w, s.last)
		return
	case err != nil || first > s.received || first+int64(len(body)) < s.received:
		fail(w, http.StatusServiceUnavailable, "backendError", "The chunk does not follow what is there.")
		return
	}
	body = body[s.received-first:] // what has come before is not taken again
	sum := crc32.Update(s.sum, crc32.MakeTable(crc32.Castagnoli), body)
	end := s.received + int64(len(body))
	if end == total && !sumHolds(w, r, sum) {
		delete(f.sessions, id)
		return
	}
	if len(body) == 0 && total < 0 { // all of it has come before
		w.Header().Set("X-Http-Status-Code-Override", "308")
		w.WriteHeader(http.StatusOK)
		return
	}
	all := "*"
	if total >= 0 {
		all = fmt.Sprint(total)
	}
	span := "*"
	if len(body) > 0 {
		span = fmt.Sprintf("%d-%d", s.received, end-1)
	}
	r.Header.Set("Content-Range", "bytes "+span+"/"+all)
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	f.next.ServeHTTP(answer, r)
	if answer.Code == http.StatusOK {
		s.received, s.sum = end, sum
		if end == total {
			s.last = answer
		}
	}
	replay(w, answer)
}

// insert is an upload in one request, as a form of a resource and its bytes.
func (f *front) insert(w http.ResponseWriter, r *http.Request, body []byte) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		fail(w, http.StatusBadRequest, "invalid", err.Error())
		return
	}
	form := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	var content []byte
	for range 2 {
		part, err := form.NextRawPart()
		if err == nil {
			content, err = io.ReadAll(part)
		}
		if err != nil {
			fail(w, http.StatusBadRequest, "invalid", err.Error())
			return
		}
	}
	if sumHolds(w, r, crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))) {
		f.next.ServeHTTP(w, r)
	}
}

// sumHolds compares the checksum that a request declares, and answers if it is another.
func sumHolds(w http.ResponseWriter, r *http.Request, sum uint32) bool {
	declared, ok := strings.CutPrefix(r.Header.Get("X-Goog-Hash"), "crc32c=")
	found := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
	if ok && declared != found {
		fail(w, http.StatusBadRequest, "invalid", fmt.Sprintf("Provided CRC32C %q doesn't match calculated CRC32C %q.", declared, found))
		return false
	}
	return true
}
