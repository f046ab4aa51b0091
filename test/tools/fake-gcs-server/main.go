// fake-gcs-server in memory, for tests, with a front that mends what it does otherwise
// than Cloud Storage: backends/gcsstore/DECISIONS.md has the list. It forgets all when it
// ends.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:4443", "`address`")
	dir := flag.String("dir", "", "`folder` to which every request is written that changes something")
	flag.Parse()
	if err := run(*listen, *dir); err != nil {
		log.Fatal(err)
	}
}

func run(listen, dir string) error {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, Scheme: "http", PublicHost: listen, ExternalURL: "http://" + listen,
	})
	if err != nil {
		return err
	}
	f := &front{fake: fake, next: fake.HTTPHandler(), dir: dir, sessions: map[string]*session{}, settings: map[string]settings{}}
	s := &http.Server{Addr: listen, Handler: f, ReadHeaderTimeout: time.Minute}
	return s.ListenAndServe()
}

// front answers what the fake gets wrong and passes on the rest. Changes come one after
// another, which makes their conditions atomic.
type front struct {
	fake *fakestorage.Server
	next http.Handler
	dir  string

	mu       sync.Mutex
	requests int
	sessions map[string]*session // of resumable uploads, by ID

	settingsLock sync.Mutex
	settings     map[string]settings // by bucket
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	segments := path(r)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		if len(segments) == 5 && segments[0] == "storage" && segments[4] == "o" {
			f.list(w, r, segments[3])
			return
		}
		if len(segments) == 4 && segments[0] == "storage" {
			f.bucket(w, r, segments[3])
			return
		}
		f.next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it hung up
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record(r, body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	f.change(w, r, segments, body)
}

// path is the request's, decoded segment by segment.
func path(r *http.Request) []string {
	segments := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
	for i, s := range segments {
		if decoded, err := url.PathUnescape(s); err == nil {
			segments[i] = decoded
		}
	}
	return segments
}

func (f *front) change(w http.ResponseWriter, r *http.Request, segments []string, body []byte) {
	n, query := len(segments), r.URL.Query()
	switch {
	case query.Get("upload_id") != "":
		f.chunk(w, r, query.Get("upload_id"), body)
	case query.Get("uploadType") == "resumable":
		f.begin(w, r)
	case query.Get("uploadType") == "multipart":
		f.insert(w, r, body)
	case n == 4 && r.Method == http.MethodPatch:
		f.configure(w, r, segments[3], body)
	case n == 6 && r.Method == http.MethodPatch:
		f.patch(w, r, object{segments[3], segments[5]}, body)
	case n == 4 && r.Method == http.MethodDelete:
		f.deleteBucket(w, r, segments[3])
	case n == 6 && r.Method == http.MethodDelete:
		f.delete(w, r, object{segments[3], segments[5]})
	case n == 7 && segments[6] == "compose":
		f.compose(w, r, object{segments[3], segments[5]}, body)
	case n == 11 && segments[6] == "rewriteTo":
		f.rewrite(w, r, object{segments[3], segments[5]}, object{segments[8], segments[10]}, body)
	default:
		f.next.ServeHTTP(w, r)
	}
}

// record keeps what the cloud gets to see.
func (f *front) record(r *http.Request, body []byte) {
	if f.dir == "" {
		return
	}
	f.requests++
	name := filepath.Join(f.dir, fmt.Sprintf("%06d", f.requests))
	head := fmt.Sprintf("%s %s\n%v\n\n", r.Method, r.URL, r.Header)
	if err := os.WriteFile(name, append([]byte(head), body...), 0o600); err != nil {
		log.Print(err)
	}
}

type object struct{ bucket, name string }

// generation is that of an object that is there, or 0.
func (f *front) generation(o object) int64 {
	found, err := f.fake.GetObjectStreaming(o.bucket, o.name)
	if err != nil {
		return 0
	}
	_ = found.Close()
	return found.Generation
}

// holds says whether the conditions on the object that is written hold, and answers if
// they do not.
func (f *front) holds(w http.ResponseWriter, r *http.Request, o object) bool {
	now := f.generation(o)
	match, notMatch := r.URL.Query().Get("ifGenerationMatch"), r.URL.Query().Get("ifGenerationNotMatch")
	if match != "" && match != strconv.FormatInt(now, 10) || notMatch != "" && notMatch == strconv.FormatInt(now, 10) {
		fail(w, http.StatusPreconditionFailed, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
		return false
	}
	return true
}

func fail(w http.ResponseWriter, status int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
		"code": status, "message": message, "errors": []map[string]string{{"reason": reason, "message": message}},
	}})
}

func notFound(w http.ResponseWriter, o object) {
	fail(w, http.StatusNotFound, "notFound", "No such object: "+o.bucket+"/"+o.name)
}

func (f *front) deleteBucket(w http.ResponseWriter, r *http.Request, bucket string) {
	all, err := f.fake.ListObjectsWithOptionsPaginated(bucket, fakestorage.ListOptions{Versions: true})
	if err == nil && len(all.Objects) > 0 {
		fail(w, http.StatusConflict, "conflict", "The bucket you tried to delete is not empty.")
		return
	}
	f.forget(bucket)
	f.next.ServeHTTP(w, r)
}

func (f *front) delete(w http.ResponseWriter, r *http.Request, o object) {
	if r.URL.Query().Get("generation") != "" { // for good, also where it is not the newest
		f.next.ServeHTTP(w, r)
		return
	}
	if f.generation(o) == 0 {
		notFound(w, o)
		return
	}
	if f.holds(w, r, o) {
		f.next.ServeHTTP(w, r)
	}
}

// destination is the resource that a request gives an object.
type destination struct {
	ContentType string            `json:"contentType"`
	Metadata    map[string]string `json:"metadata"`
}

// make stores an object and returns it as the fake describes it.
func (f *front) make(o object, d destination, content []byte) (json.RawMessage, error) {
	err := f.fake.CreateObjectStreaming(fakestorage.Object{
		ObjectAttrs: fakestorage.ObjectAttrs{BucketName: o.bucket, Name: o.name, ContentType: d.ContentType, Metadata: d.Metadata},
		Content:     content,
	}.StreamingObject())
	if err != nil {
		return nil, err
	}
	target := "/storage/v1/b/" + url.PathEscape(o.bucket) + "/o/" + url.PathEscape(o.name)
	answer := httptest.NewRecorder()
	f.next.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, target, nil))
	return answer.Body.Bytes(), nil
}

func (f *front) compose(w http.ResponseWriter, r *http.Request, to object, body []byte) {
	var request struct {
		SourceObjects []struct {
			Name       string `json:"name"`
			Generation int64  `json:"generation,string"`
		} `json:"sourceObjects"`
		Destination destination `json:"destination"`
	}
	if err := json.Unmarshal(body, &request); err != nil || len(request.SourceObjects) < 1 || len(request.SourceObjects) > 32 {
		fail(w, http.StatusBadRequest, "invalid", "The number of source components must be between 1 and 32.")
		return
	}
	var content []byte
	for _, source := range request.SourceObjects {
		from := object{to.bucket, source.Name}
		data, _, ok := f.source(from, source.Generation)
		if !ok {
			notFound(w, from)
			return
		}
		content = append(content, data...)
	}
	if f.holds(w, r, to) {
		f.answer(w, to, request.Destination, content, nil)
	}
}

// source is an object of a generation; 0 is the newest.
func (f *front) source(o object, generation int64) ([]byte, fakestorage.ObjectAttrs, bool) {
	found, err := f.fake.GetObjectWithGeneration(o.bucket, o.name, generation)
	if err != nil {
		return nil, fakestorage.ObjectAttrs{}, false
	}
	return found.Content, found.ObjectAttrs, true
}

func (f *front) answer(w http.ResponseWriter, to object, d destination, content []byte, wrap func(json.RawMessage) any) {
	if _, err := f.fake.ListObjectsWithOptionsPaginated(to.bucket, fakestorage.ListOptions{MaxResults: 1}); err != nil {
		fail(w, http.StatusNotFound, "notFound", "The specified bucket does not exist.")
		return
	}
	made, err := f.make(to, d, content)
	if err != nil {
		fail(w, http.StatusInternalServerError, "internalError", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if wrap == nil {
		_, _ = w.Write(made)
		return
	}
	_ = json.NewEncoder(w).Encode(wrap(made))
}

// oneCall is how much a rewrite copies at once: the rest takes another, as between
// locations.
const oneCall = 1 << 20

func (f *front) rewrite(w http.ResponseWriter, r *http.Request, from, to object, body []byte) {
	asked, token := r.URL.Query().Get("sourceGeneration"), r.URL.Query().Get("rewriteToken")
	if token != "" {
		asked = token
	}
	generation, _ := strconv.ParseInt(asked, 10, 64)
	content, attrs, ok := f.source(from, generation)
	if !ok {
		notFound(w, from)
		return
	}
	if !f.holds(w, r, to) {
		return
	}
	size := strconv.Itoa(len(content))
	if token == "" && len(content) > oneCall {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"done": false, "objectSize": size, "totalBytesRewritten": strconv.Itoa(oneCall), "rewriteToken": strconv.FormatInt(attrs.Generation, 10),
		})
		return
	}
	d := destination{attrs.ContentType, attrs.Metadata}
	if given := bytes.TrimSpace(body); len(given) > 0 && string(given) != "{}" {
		d = destination{}
		if err := json.Unmarshal(body, &d); err != nil {
			fail(w, http.StatusBadRequest, "invalid", err.Error())
			return
		}
	}
	f.answer(w, to, d, content, func(made json.RawMessage) any {
		return map[string]any{"done": true, "objectSize": size, "totalBytesRewritten": size, "resource": made}
	})
}
