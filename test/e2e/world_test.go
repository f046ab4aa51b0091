package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

const stopPatience = 40 * time.Second

// cloud is where a world keeps its sealed objects.
type cloud struct {
	url string   // for --backend; empty means files in the data folder
	env []string // credentials
	dir string   // what the provider can see; empty means the data folder's
}

// clouds are those that every test of them runs on: files alone in a short run, files and
// MinIO in `make test`, and all that can be had in `make clouds`.
func clouds() map[string]func(t *testing.T) cloud {
	all := map[string]func(t *testing.T) cloud{"filestore": func(*testing.T) cloud { return cloud{} }}
	if !testing.Short() {
		all["minio"] = onMinIO
	}
	if allClouds() {
		all["versitygw"], all["azurite"], all["gcs"] = onVersityGW, onAzurite, onFakeGCS
	}
	return all
}

func onMinIO(t *testing.T) cloud {
	t.Helper()
	return cloudOf(minio.MinIO(t), "")
}

// cloudOf is the cloud behind a MinIO, reached at an address of its own if one is given.
func cloudOf(s *servers.S3, host string) cloud {
	if host == "" {
		host = strings.TrimPrefix(s.Endpoint, "http://")
	}
	return cloud{
		url: "s3+http://" + host,
		env: []string{
			"CHATELAINE_BACKEND_ACCESS_KEY_ID=" + s.AccessKeyID,
			"CHATELAINE_BACKEND_SECRET_ACCESS_KEY=" + s.SecretAccessKey,
		},
		dir: s.Dir,
	}
}

// world is the product on one machine: `chatelaine up`, its user and its cloud.
type world struct {
	*harness.Gateway
	t       *testing.T
	options *harness.Options
	cloud   cloud
}

// newWorld starts one that ends with the test. Each change may alter its options.
func newWorld(t *testing.T, c cloud, change ...func(*harness.Options)) *world {
	t.Helper()
	w := planWorld(t, c, change...)
	w.up()
	return w
}

// planWorld is newWorld without the start.
func planWorld(t *testing.T, c cloud, change ...func(*harness.Options)) *world {
	t.Helper()
	requireSoftHSM(t)
	data := filepath.Join(t.TempDir(), "data")
	if c.dir == "" {
		c.dir = filepath.Join(data, "cloud")
	}
	user := harness.Credentials{AccessKeyID: "AK" + rand.Text()[:18], SecretAccessKey: marker("secret")}
	w := &world{t: t, cloud: c, options: &harness.Options{Binary: product, Data: data, Backend: c.url, User: user, Env: c.env}}
	for _, f := range change {
		f(w.options)
	}
	t.Cleanup(w.end)
	return w
}

func requireSoftHSM(t *testing.T) {
	t.Helper()
	if os.Getenv("CHATELAINE_SOFTHSM_MODULE") == "" {
		program(t, "softhsm2-util")
	}
}

// up starts the product with the same options as before.
func (w *world) up() {
	w.t.Helper()
	g, err := harness.Up(w.t.Context(), w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Gateway = g
}

// stop is Ctrl-C.
func (w *world) stop() {
	w.t.Helper()
	if err := w.Stop(stopPatience); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) end() {
	if w.Gateway == nil {
		return
	}
	select {
	case <-w.Done():
	default:
		if err := w.Stop(stopPatience); err != nil {
			w.t.Error(err)
		}
	}
	if w.t.Failed() {
		log := w.Stderr()
		w.t.Logf("the end of the log:\n%s", log[max(0, len(log)-2500):])
	}
}

// kms is the process id of the KMS.
func (w *world) kms() int {
	w.t.Helper()
	children, err := harness.Children(w.PID)
	if err != nil || len(children) != 1 {
		w.t.Fatalf("the children of the gateway: got %v and %v, want one: the KMS", children, err)
	}
	return children[0]
}

// client is a raw client for the user.
func (w *world) client() *harness.Client { return rawClient(w.Endpoint, w.User) }

func rawClient(endpoint string, user harness.Credentials) *harness.Client {
	return &harness.Client{Endpoint: endpoint, User: user, HTTP: harness.NewHTTP()}
}

// sdk is aws-sdk-go-v2's client for the user.
func (w *world) sdk() *s3.Client { return sdkClient(w.Endpoint, w.User, nil) }

func sdkClient(endpoint string, user harness.Credentials, h *http.Client) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(endpoint), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(user.AccessKeyID, user.SecretAccessKey, ""),
		HTTPClient:  httpClient(h),
		// What the SDK's own configuration says by default.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	})
}

func httpClient(h *http.Client) *http.Client {
	if h == nil {
		return &http.Client{}
	}
	return h
}

// newName is a bucket name that no other test has: they share a MinIO.
func newName() string { return "e2e-" + strings.ToLower(rand.Text()[:16]) }

// bucket makes a bucket that nothing is known of.
func (w *world) bucket() string {
	w.t.Helper()
	name := newName()
	w.do(harness.Request{Method: http.MethodPut, Path: "/" + name}).want(http.StatusOK)
	return name
}

// answer is an answer that has been read.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

// do sends a request and reads the answer.
func (w *world) do(r harness.Request) *answer {
	w.t.Helper()
	return send(w.t, w.client(), r)
}

func send(t *testing.T, c *harness.Client, r harness.Request) *answer {
	t.Helper()
	a, err := trySend(t, c, r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.Path, err)
	}
	return a
}

func trySend(t *testing.T, c *harness.Client, r harness.Request) (*answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	resp, err := c.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return &answer{t, resp.StatusCode, resp.Header, body}, err
}

func (a *answer) want(status int) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("got status %d, want %d: %.600s", a.status, status, a.body)
	}
	return a
}

// code is the code of an S3 error.
func (a *answer) code() string {
	var e struct{ Code string }
	_ = xml.Unmarshal(a.body, &e)
	return e.Code
}

// put stores bytes and get reads them back: by the raw client, without escaping.
func (w *world) put(path string, body []byte) *answer {
	w.t.Helper()
	return w.do(harness.Request{Method: http.MethodPut, Path: path, Body: bytes.NewReader(body), Size: int64(len(body))})
}

func (w *world) get(path string) *answer {
	w.t.Helper()
	return w.do(harness.Request{Method: http.MethodGet, Path: path})
}
