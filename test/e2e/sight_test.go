package e2e

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/test/e2e/harness"
)

// recorder is a line to a cloud that writes down each byte that is sent to it: request
// lines, headers, bodies, trailers.
type recorder struct {
	t        *testing.T
	listener net.Listener
	target   string
	dir      string
	mu       sync.Mutex
	conns    int
	running  sync.WaitGroup
}

func newRecorder(t *testing.T, target string) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, listener: l, target: target, dir: t.TempDir()}
	r.running.Go(r.accept)
	t.Cleanup(func() { _ = l.Close() })
	return r
}

func (r *recorder) host() string { return r.listener.Addr().String() }

func (r *recorder) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.serve(conn) })
	}
}

func (r *recorder) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", r.target)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer far.Close()
	r.mu.Lock()
	r.conns++
	name := filepath.Join(r.dir, fmt.Sprint(r.conns))
	r.mu.Unlock()
	out, err := os.Create(name)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer out.Close()
	r.running.Go(func() {
		_, _ = io.Copy(near, far) // the end of either ends both
		_ = near.Close()
	})
	if _, err := io.Copy(io.MultiWriter(out, far), near); err != nil && !strings.Contains(err.Error(), "closed") && !strings.Contains(err.Error(), "reset") {
		r.t.Error(err)
	}
	_ = far.Close()
}

// end waits for the last byte; the gateway must have ended.
func (r *recorder) end() {
	_ = r.listener.Close()
	r.running.Wait()
}

// TestACloudSeesNothingOfWhatItHolds does all that carries anything of a client's to a
// cloud, and searches each byte that was sent there, and all else that others may see.
func TestACloudSeesNothingOfWhatItHolds(t *testing.T) {
	large(t)
	server := minio.MinIO(t)
	r := newRecorder(t, strings.TrimPrefix(server.Endpoint, "http://"))
	w := newWorld(t, cloudOf(server, r.host()))
	s := &sight{world: w, bucket: w.bucket(), client: w.sdk()}
	s.objects()
	s.uploads()
	s.copies()
	s.form()
	s.configurations()
	s.mistakes()
	w.assertEnvironments()
	w.assertSealed()
	w.stop()
	r.end()
	if n := w.searchFolder(r.dir, nil); n < 12<<20 {
		t.Errorf("%d bytes were recorded, want all that was sent", n)
	}
	w.searchFolder(w.Home(), []string{filepath.Join(w.Home(), "token")})
	w.search("log", strings.NewReader(w.Stderr()))
}

// TestARecorderFindsWhatIsSent sends to a cloud, past the gateway, what must not be sent.
func TestARecorderFindsWhatIsSent(t *testing.T) {
	large(t)
	server := minio.MinIO(t)
	for name, change := range map[string]func(*s3.PutObjectInput){
		"body":     func(in *s3.PutObjectInput) { in.Body = strings.NewReader("some " + marker("body")) },
		"type":     func(in *s3.PutObjectInput) { in.ContentType = aws.String("text/" + marker("type")) },
		"metadata": func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"note": marker("note")} },
		"nothing":  func(*s3.PutObjectInput) {},
	} {
		r := newRecorder(t, strings.TrimPrefix(server.Endpoint, "http://"))
		user := harness.Credentials{AccessKeyID: server.AccessKeyID, SecretAccessKey: server.SecretAccessKey}
		h := &http.Client{Transport: &http.Transport{}}
		client, bucket := sdkClient("http://"+r.host(), user, h), newName()
		if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
			t.Fatal(err)
		}
		in := &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("canary"), Body: strings.NewReader("text")}
		change(in)
		if _, err := client.PutObject(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		h.CloseIdleConnections()
		r.end()
		text, err := os.ReadFile(filepath.Join(r.dir, "1"))
		if err != nil {
			t.Fatal(err)
		}
		_, found, err := search(bytes.NewReader(text), needles(sign))
		if err != nil || (found != nil) != (name != "nothing") {
			t.Errorf("%s: got %q and %v of %d bytes", name, found, err, len(text))
		}
	}
}

// sight sends what must not be seen.
type sight struct {
	*world
	bucket string
	client *s3.Client
}

func (s *sight) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func planted(size int) []byte {
	return bytes.Repeat([]byte(marker("body")+" "), size/16+1)[:size]
}

func (s *sight) objects() {
	for i, size := range []int{100, 20_000, 400_000, 6 << 20} {
		key := fmt.Sprint("object-", i)
		_, err := s.client.PutObject(s.t.Context(), &s3.PutObjectInput{
			Bucket: &s.bucket, Key: &key, Body: bytes.NewReader(planted(size)), Metadata: map[string]string{"note": marker("note")},
			ContentType: aws.String("text/" + marker("type")), ContentDisposition: aws.String(marker("disposition")), ContentEncoding: aws.String(marker("encoding")),
			ContentLanguage: aws.String(marker("language")), CacheControl: aws.String(marker("cache")), WebsiteRedirectLocation: aws.String("/" + marker("redirect")),
			ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
		})
		s.must(err)
		got := s.get("/" + s.bucket + "/" + key).want(200)
		if len(got.body) != size || !strings.Contains(got.header.Get("Content-Type"), sign) {
			s.t.Errorf("%s: got %d bytes of %q", key, len(got.body), got.header.Get("Content-Type"))
		}
		s.do(harness.Request{Method: http.MethodGet, Path: "/" + s.bucket + "/" + key, Header: http.Header{"Range": {"bytes=10-40"}}}).want(206)
	}
	_, err := s.client.PutObjectTagging(s.t.Context(), &s3.PutObjectTaggingInput{
		Bucket: &s.bucket, Key: aws.String("object-0"), // tags are for the provider to read
		Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("seen"), Value: aws.String("by all")}}},
	})
	s.must(err)
}

func (s *sight) uploads() {
	key := aws.String("uploaded")
	u, err := s.client.CreateMultipartUpload(s.t.Context(), &s3.CreateMultipartUploadInput{
		Bucket: &s.bucket, Key: key, ContentType: aws.String("text/" + marker("type")), Metadata: map[string]string{"note": marker("note")},
	})
	s.must(err)
	var parts []types.CompletedPart
	for i, size := range []int{5 << 20, 50_000} {
		number := aws.Int32(int32(i + 1))
		p, err := s.client.UploadPart(s.t.Context(), &s3.UploadPartInput{
			Bucket: &s.bucket, Key: key, UploadId: u.UploadId, PartNumber: number, Body: bytes.NewReader(planted(size)),
		})
		s.must(err)
		parts = append(parts, types.CompletedPart{ETag: p.ETag, PartNumber: number, ChecksumCRC32: p.ChecksumCRC32})
	}
	_, err = s.client.ListParts(s.t.Context(), &s3.ListPartsInput{Bucket: &s.bucket, Key: key, UploadId: u.UploadId})
	s.must(err)
	_, err = s.client.CompleteMultipartUpload(s.t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &s.bucket, Key: key, UploadId: u.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	s.must(err)
}

func (s *sight) copies() {
	source := aws.String(s.bucket + "/object-2")
	_, err := s.client.CopyObject(s.t.Context(), &s3.CopyObjectInput{
		Bucket: &s.bucket, Key: aws.String("copied"), CopySource: source, MetadataDirective: types.MetadataDirectiveReplace,
		ContentType: aws.String("text/" + marker("type")), Metadata: map[string]string{"note": marker("note")},
	})
	s.must(err)
	_, err = s.client.CopyObject(s.t.Context(), &s3.CopyObjectInput{
		Bucket: &s.bucket, Key: aws.String("sealed again"), CopySource: source, ChecksumAlgorithm: types.ChecksumAlgorithmSha1,
	})
	s.must(err)
	key := aws.String("copied in parts")
	u, err := s.client.CreateMultipartUpload(s.t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.bucket, Key: key})
	s.must(err)
	p, err := s.client.UploadPartCopy(s.t.Context(), &s3.UploadPartCopyInput{
		Bucket: &s.bucket, Key: key, UploadId: u.UploadId, PartNumber: aws.Int32(1), CopySource: source, CopySourceRange: aws.String("bytes=0-99999"),
	})
	s.must(err)
	_, err = s.client.CompleteMultipartUpload(s.t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &s.bucket, Key: key, UploadId: u.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: p.CopyPartResult.ETag, PartNumber: aws.Int32(1), ChecksumCRC32: p.CopyPartResult.ChecksumCRC32}}},
	})
	s.must(err)
}

// form is a browser's upload.
func (s *sight) form() {
	signed, err := s3.NewPresignClient(s.client).PresignPostObject(s.t.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: aws.String("form")}, func(o *s3.PresignPostOptions) {
		o.Conditions = []any{[]any{"starts-with", "$Content-Type", ""}, []any{"starts-with", "$x-amz-meta-note", ""}}
	})
	s.must(err)
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range signed.Values {
		s.must(form.WriteField(name, value))
	}
	s.must(form.WriteField("Content-Type", "text/"+marker("type")))
	s.must(form.WriteField("x-amz-meta-note", marker("note")))
	file, err := form.CreateFormFile("file", "form")
	s.must(err)
	_, err = file.Write(planted(30_000))
	s.must(err)
	s.must(form.Close())
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, signed.URL, &body)
	s.must(err)
	req.Header.Set("Content-Type", form.FormDataContentType())
	client := &http.Client{}
	resp, err := client.Do(req)
	s.must(err)
	if text := readAll(s.t, resp.Body); resp.StatusCode >= 300 {
		s.t.Errorf("a form: got %d: %s", resp.StatusCode, text)
	}
}

// configurations are what clients say of a bucket and the gateway acts on.
func (s *sight) configurations() {
	_, err := s.client.PutBucketCors(s.t.Context(), &s3.PutBucketCorsInput{Bucket: &s.bucket, CORSConfiguration: &types.CORSConfiguration{
		CORSRules: []types.CORSRule{{AllowedMethods: []string{"GET"}, AllowedOrigins: []string{"https://" + marker("origin")}}},
	}})
	s.must(err)
	_, err = s.client.PutBucketTagging(s.t.Context(), &s3.PutBucketTaggingInput{Bucket: &s.bucket, Tagging: &types.Tagging{
		TagSet: []types.Tag{{Key: aws.String("team"), Value: aws.String(marker("team"))}},
	}})
	s.must(err)
}

// mistakes are refused, and the answers show nothing of what was sent, nor of what is
// there.
func (s *sight) mistakes() {
	for name, r := range map[string]harness.Request{
		"wrong checksum":   {Method: http.MethodPut, Path: "/" + s.bucket + "/refused", Header: http.Header{"X-Amz-Checksum-Crc32c": {"AAAAAA=="}, "Content-Type": {marker("type")}}},
		"too much said":    {Method: http.MethodPut, Path: "/" + s.bucket + "/refused", Header: http.Header{"X-Amz-Meta-Note": {strings.Repeat(marker("note"), 60)}}},
		"no such upload":   {Method: http.MethodPut, Path: "/" + s.bucket + "/refused", Query: url.Values{"partNumber": {"1"}, "uploadId": {"x"}}},
		"no such bucket":   {Method: http.MethodPut, Path: "/" + newName() + "/refused", Header: http.Header{"X-Amz-Meta-Note": {marker("note")}}},
		"precondition":     {Method: http.MethodPut, Path: "/" + s.bucket + "/object-0", Header: http.Header{"If-None-Match": {"*"}, "X-Amz-Meta-Note": {marker("note")}}},
		"range beyond end": {Method: http.MethodGet, Path: "/" + s.bucket + "/object-0", Header: http.Header{"Range": {"bytes=1000-"}}},
	} {
		if r.Method == http.MethodPut {
			body(&r, planted(50_000))
		}
		a := s.do(r)
		if a.status < 400 {
			s.t.Errorf("%s: got %d, want a refusal", name, a.status)
		}
		var head bytes.Buffer
		s.must(a.header.Write(&head))
		s.search("answer to "+name, io.MultiReader(&head, bytes.NewReader(a.body)))
	}
	metrics, err := s.Metrics(s.t.Context())
	s.must(err)
	s.search("metrics", strings.NewReader(metrics))
}

// assertEnvironments looks at what the system shows of the processes. The gateway was
// given its credentials in the environment by the user; the KMS and what it starts
// must see none, and nobody's command line or environment may have a PIN.
func (w *world) assertEnvironments() {
	w.t.Helper()
	given := map[string]bool{}
	for _, n := range needles(sign) {
		given[string(n)] = true
	}
	for _, v := range w.cloud.env {
		_, value, _ := strings.Cut(v, "=")
		given[value] = true
	}
	w.searchProcess(w.PID, "cmdline", nil)
	w.searchProcess(w.PID, "environ", given)
	for pids := []int{w.kms()}; len(pids) > 0; pids = pids[1:] {
		w.searchProcess(pids[0], "cmdline", nil)
		w.searchProcess(pids[0], "environ", nil)
		children, err := harness.Children(pids[0])
		if err != nil {
			w.t.Fatal(err)
		}
		pids = append(pids, children...)
	}
}

// searchProcess searches a file of /proc, but for what may be in it.
func (w *world) searchProcess(pid int, file string, but map[string]bool) {
	w.t.Helper()
	name := fmt.Sprintf("/proc/%d/%s", pid, file)
	text, err := os.ReadFile(name)
	if err != nil || len(text) == 0 {
		w.t.Fatalf("reading %s: %d bytes, %v", name, len(text), err)
	}
	for _, secret := range w.secrets() {
		if !but[string(secret)] && bytes.Contains(text, secret) {
			w.t.Errorf("%s holds %q, which must not be seen there", name, secret)
		}
	}
}
