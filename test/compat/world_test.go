package compat

import (
	"context"
	"fmt"
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

// account is a server's that may do everything there.
type account struct {
	endpoint string
	user     harness.Credentials
	trusted  *authority // of HTTPS; nil over HTTP
}

func accountOf(s *servers.S3) account {
	return account{endpoint: s.Endpoint, user: harness.Credentials{AccessKeyID: s.AccessKeyID, SecretAccessKey: s.SecretAccessKey}}
}

// env is what SDKs and tools of AWS's read.
func (a account) env() []string {
	env := []string{
		"AWS_ACCESS_KEY_ID=" + a.user.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + a.user.SecretAccessKey,
		"AWS_DEFAULT_REGION=us-east-1", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true",
	}
	if a.trusted != nil {
		env = append(env, "AWS_CA_BUNDLE="+a.ca(), "NODE_EXTRA_CA_CERTS="+a.ca(), "CURL_CA_BUNDLE="+a.ca())
	}
	return env
}

// ca is the file of the certificate that clients must trust; empty over HTTP.
func (a account) ca() string {
	if a.trusted == nil {
		return ""
	}
	return a.trusted.file
}

func (a account) http() *http.Client {
	if a.trusted == nil {
		return &http.Client{}
	}
	return a.trusted.client()
}

// raw is a client that costs next to nothing.
func (a account) raw() *harness.Client {
	return &harness.Client{Endpoint: a.endpoint, User: a.user, HTTP: harness.NewHTTP()}
}

// sdk is Amazon's client for Go, with its checksums by default.
func (a account) sdk() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(a.endpoint), Region: "us-east-1", UsePathStyle: true,
		Credentials:                credentials.NewStaticCredentialsProvider(a.user.AccessKeyID, a.user.SecretAccessKey, ""),
		HTTPClient:                 a.http(),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	})
}

// bucket makes a bucket that nobody else has.
func (a account) bucket(t *testing.T) string {
	t.Helper()
	name := newName()
	if _, err := a.sdk().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return name
}

// clouds are all that the product is tested on; files alone in a short run.
func clouds() map[string]func(*testing.T) *servers.S3 {
	all := map[string]func(*testing.T) *servers.S3{"filestore": func(*testing.T) *servers.S3 { return nil }}
	if !testing.Short() {
		all["minio"] = func(t *testing.T) *servers.S3 { return minio.MinIO(t) }
	}
	return all
}

// world is `chatelaine up` on a cloud.
type world struct {
	*harness.Gateway
	account
}

// newWorld starts one that ends with the test; its cloud is files where none is given.
func newWorld(t *testing.T, cloud *servers.S3) *world { return newWorldWith(t, cloud, nil) }

// newWorldWith starts one on HTTPS where there is an authority to sign for it.
func newWorldWith(t *testing.T, cloud *servers.S3, trusted *authority) *world {
	t.Helper()
	return startWorld(t, cloud, trusted, &harness.Options{})
}

// newNamesakeWorld starts one whose user is called by its access key's id: versitygw,
// and so its suite, knows accounts by nothing else.
func newNamesakeWorld(t *testing.T, cloud *servers.S3) *world {
	t.Helper()
	user := harness.NewCredentials()
	return startWorld(t, cloud, nil, &harness.Options{User: user, Args: []string{"--user", user.AccessKeyID}})
}

// startWorld fills in where the product, its data and its cloud are.
func startWorld(t *testing.T, cloud *servers.S3, trusted *authority, o *harness.Options) *world {
	t.Helper()
	if os.Getenv("CHATELAINE_SOFTHSM_MODULE") == "" {
		program(t, "softhsm2-util")
	}
	dir, err := os.MkdirTemp("", "compat-") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o.Binary, o.Data = product, filepath.Join(dir, "data")
	o.Backend, o.Env = backend(cloud)
	if trusted != nil {
		o.Config, o.TLS = trusted.serve(t), true
	}
	g, err := harness.Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, g.Process) })
	return &world{g, account{g.Endpoint, g.User, trusted}}
}

// backend is a cloud's URL, empty for files, and the environment that goes with it.
func backend(cloud *servers.S3) (url string, env []string) {
	if cloud == nil {
		return "", nil
	}
	return "s3+http://" + strings.TrimPrefix(cloud.Endpoint, "http://"), []string{
		"CHATELAINE_BACKEND_ACCESS_KEY_ID=" + cloud.AccessKeyID,
		"CHATELAINE_BACKEND_SECRET_ACCESS_KEY=" + cloud.SecretAccessKey,
	}
}

func stop(t *testing.T, p *harness.Process) {
	t.Helper()
	if err := p.Stop(stopPatience); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		log := p.Stderr()
		t.Logf("the end of the log:\n%s", log[max(0, len(log)-2500):])
	}
}

// cloudURL is that of the backend, also where it is files by default.
func (w *world) cloudURL() string {
	if w.Options.Backend != "" {
		return w.Options.Backend
	}
	return "file://" + filepath.Join(w.Data, "cloud")
}

// replica starts a second gateway beside a world's own, on the same KMS and on the same
// cloud, whatever its URL there.
func (w *world) replica(t *testing.T, url string) account {
	t.Helper()
	listen, admin := freeAddress(t), freeAddress(t)
	base := filepath.Join(filepath.Dir(w.Data), "replica")
	text := fmt.Sprintf("listen: %s\nadmin_listen: %s\nkms: {address: 'unix://%s'}\nbackends: {main: {url: '%s'}}\naccess_log: {file: '%s'}\n",
		listen, admin, filepath.Join(w.Home(), "run", "kms.sock"), url, base+"-access.log")
	if err := os.WriteFile(base+".yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := harness.Start(product, base, []string{"gateway", "--config", base + ".yaml"}, w.Env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, p) })
	err = p.Await(t.Context(), stopPatience, func(ctx context.Context) error { return harness.Ready(ctx, "http://"+admin) })
	if err != nil {
		t.Fatal(err)
	}
	return account{endpoint: "http://" + listen, user: w.user}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := harness.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
