package s3api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/access"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/objects"
)

const (
	annKey, annSecret = "AKIAANN", "ann-secret-that-must-not-leak"
	bobKey, bobSecret = "AKIABOB", "bob-secret-that-must-not-leak"
	region            = "eu-central-1"
	unsigned          = "UNSIGNED-PAYLOAD"
)

// owners lets the owner of a bucket do everything, and remembers what it was asked.
type owners struct {
	mu    sync.Mutex
	asked []access.Request
	fail  error
}

func (o *owners) Authorize(_ context.Context, r access.Request) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, r)
	if o.fail != nil {
		return o.fail
	}
	if r.Owner != "" && r.Owner != r.Principal || strings.HasPrefix(r.Key, "denied") {
		return access.ErrDenied
	}
	return nil
}

// Sees implements access.Authorizer.
func (o *owners) Sees(_ context.Context, r access.Request) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return r.Owner == r.Principal, o.fail
}

func (o *owners) last() access.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[len(o.asked)-1]
}

// world is a Handler behind a real server, over the real service on a memory
// store. Ann has a bucket of the name "bucket".
type world struct {
	t       testing.TB
	ring    *keystest.Ring
	store   *memstore.Store
	second  *memstore.Store // another backend, which is offered
	access  *owners
	logs    *observer.ObservedLogs
	handler *Handler
	server  *httptest.Server
}

// newWorld makes a world; change adapts its Config.
func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, ring: keystest.New(), store: memstore.New(), second: memstore.New(), access: &owners{}}
	w.ring.AddUser(annKey, annSecret, "ann")
	w.ring.AddUser(bobKey, bobSecret, "bob")
	service, err := objects.New(objects.Config{
		Keys: w.ring, Stores: map[string]backends.Store{"main": w.store, "second": w.second, "third": memstore.New()}, DefaultStore: "main", Offered: []string{"second"}, Prefix: "there-", Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	w.logs = logs
	c := Config{
		Service: service, Keys: w.ring, Authorizer: w.access, Region: region, Domain: "s3.example", Logger: zap.New(core),
	}
	for _, f := range change {
		f(&c)
	}
	if w.handler, err = New(c); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(w.handler)
	w.server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	w.server.Start()
	t.Cleanup(w.server.Close)
	if err := service.CreateBucket(t.Context(), "ann", "bucket"); err != nil {
		t.Fatal(err)
	}
	return w
}

// s3 is the SDK's client, as ann.
func (w *world) s3(change ...func(*s3.Options)) *s3.Client {
	options := s3.Options{
		BaseEndpoint: &w.server.URL, Region: region, UsePathStyle: true, RetryMaxAttempts: 1, HTTPClient: w.server.Client(),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: annKey, SecretAccessKey: annSecret}, nil
		}),
	}
	options.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
	options.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	return s3.New(options, change...)
}

// secure makes the world's server speak TLS, over which the SDK sends trailers.
func (w *world) secure() *world {
	w.server.Close()
	w.server = httptest.NewUnstartedServer(w.handler)
	w.server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	w.server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	w.server.StartTLS()
	w.t.Cleanup(w.server.Close)
	return w
}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	body   []byte
	fault  struct {
		XMLName                                         xml.Name `xml:"Error"`
		Code, Message, Resource                         string
		RequestID                                       string `xml:"RequestId"`
		HostID                                          string `xml:"HostId"`
		Header, Region, ArgumentName, ActualObjectSize  string
		RangeRequested, Condition, BucketName, UploadID string
	}
}

// sent is a request before it is signed.
type sent struct {
	method, path string
	body         string
	header       []string // "Name: value"
	hash         string   // of the payload as stated; empty means the true one
	key, secret  string   // ann's when empty
	host         string
	age          time.Duration       // how long ago it is signed
	spoil        func(*http.Request) // after signing
}

// request makes the signed request.
func (w *world) request(s sent) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), s.method, w.server.URL+s.path, strings.NewReader(s.body))
	if err != nil {
		w.t.Fatal(err)
	}
	if s.body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	for _, line := range s.header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	if s.host != "" {
		r.Host = s.host
	}
	w.sign(r, s)
	if s.spoil != nil {
		s.spoil(r)
	}
	return r
}

func (w *world) sign(r *http.Request, s sent) {
	w.t.Helper()
	if s.key == "" {
		s.key, s.secret = annKey, annSecret
	}
	if s.hash == "" {
		sum := sha256.Sum256([]byte(s.body))
		s.hash = hex.EncodeToString(sum[:])
	}
	r.Header.Set("X-Amz-Content-Sha256", s.hash)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	creds := aws.Credentials{AccessKeyID: s.key, SecretAccessKey: s.secret}
	if err := signer.SignHTTP(w.t.Context(), creds, r, s.hash, "s3", region, time.Now().Add(-s.age)); err != nil {
		w.t.Fatal(err)
	}
}

// send signs, sends and reads the answer.
func (w *world) send(s sent) answer {
	w.t.Helper()
	return w.do(w.request(s))
}

func (w *world) do(r *http.Request) answer {
	w.t.Helper()
	response, err := w.server.Client().Do(r)
	if err != nil {
		w.t.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	defer response.Body.Close()
	return w.read(response)
}

func (w *world) read(response *http.Response) (a answer) {
	w.t.Helper()
	a.status, a.header = response.StatusCode, response.Header
	r := response.Request
	var err error
	if a.body, err = io.ReadAll(response.Body); err != nil {
		w.t.Fatalf("%s %s: reading the body: %v", r.Method, r.URL.Path, err)
	}
	if a.status >= 300 && len(a.body) > 0 {
		if err := xml.Unmarshal(a.body, &a.fault); err != nil {
			w.t.Fatalf("%s %s: %d with a body that is no S3 error: %v\n%s", r.Method, r.URL.Path, a.status, err, a.body)
		}
	}
	return a
}

// wants checks an error answer's status and code; an empty code means success.
func (w *world) wants(a answer, status int, code string) {
	w.t.Helper()
	if a.status != status || a.fault.Code != code {
		w.t.Errorf("got %d %q (%s), want %d %q", a.status, a.fault.Code, a.fault.Message, status, code)
	}
}

// put stores an object and fails the test where that fails.
func (w *world) put(key, body string, header ...string) answer {
	w.t.Helper()
	a := w.send(sent{method: "PUT", path: "/bucket/" + key, body: body, header: header})
	if a.status != http.StatusOK {
		w.t.Fatalf("putting %q: %d %s", key, a.status, a.body)
	}
	return a
}

// stored lists what the backend holds beside the gateway's own objects.
func (w *world) stored() (names []string) {
	w.t.Helper()
	page, err := w.store.List(w.t.Context(), "there-bucket", &backends.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range page.Entries {
		if !objects.Reserved(e.Key) {
			names = append(names, e.Key)
		}
	}
	return names
}

// codeOf is the S3 code of an SDK error.
func codeOf(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), 7}).Read(b)
	return b
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func sameBytes(t *testing.T, got io.Reader, want []byte) {
	t.Helper()
	b, err := io.ReadAll(got)
	if err != nil || !bytes.Equal(b, want) {
		t.Errorf("got %d bytes and %v, want %d bytes", len(b), err, len(want))
	}
}

func (w *world) bucketOf(t *testing.T) keys.Bucket {
	t.Helper()
	b, err := w.handler.Service.Bucket(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	return b
}
