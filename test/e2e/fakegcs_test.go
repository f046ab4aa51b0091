package e2e

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"chatelaine/test/servers"
)

func onFakeGCS(t *testing.T) cloud {
	t.Helper()
	s := servers.FakeGCS(t)
	_, address, _ := strings.Cut(s.Endpoint, "://")
	return cloud{url: "gcs+http://" + address + "/" + s.Project + "?location=EU", dir: s.Dir}
}

// As on Azurite. What is searched for secrets is all that the server was sent.
func TestTheCommandLineWorksOnGoogleCloudStorage(t *testing.T) {
	if testing.Short() {
		t.Skip("needs fake-gcs-server")
	}
	w := newWorld(t, onFakeGCS(t))
	session{w, newDebianAWS(t, w), newFolder(t, 20<<20+3)}.run()
	w.assertDiscreet()
}

// gcsOwner uses Cloud Storage by its own API, without the gateway.
type gcsOwner struct {
	t   *testing.T
	url string
}

// request sends one, and returns what the answer says.
func (o gcsOwner) request(method, path, contentType string, body []byte) map[string]any {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.url+path, bytes.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		o.t.Fatalf("%s %s: status %d, %v", method, path, resp.StatusCode, err)
	}
	return answer
}

// put uploads an object with its metadata ("Upload objects", multipart upload).
func (o gcsOwner) put(bucket string, metadata map[string]any, data []byte) {
	o.t.Helper()
	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	text, err := json.Marshal(metadata)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, part := range []struct {
		kind string
		data []byte
	}{{"application/json", text}, {"text/csv", data}} {
		w, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {part.kind}})
		if err != nil {
			o.t.Fatal(err)
		}
		if _, err := w.Write(part.data); err != nil {
			o.t.Fatal(err)
		}
	}
	if err := parts.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.request(http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?uploadType=multipart", "multipart/related; boundary="+parts.Boundary(), body.Bytes())
}

func TestABucketOfGoogleCloudStorageIsAdopted(t *testing.T) {
	if testing.Short() {
		t.Skip("needs fake-gcs-server")
	}
	on := onFakeGCS(t)
	address, project, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(on.url, "gcs+http://"), "?location=EU"), "/")
	o := gcsOwner{t, "http://" + address}
	o.request(http.MethodPost, "/storage/v1/b?project="+project, "application/json", []byte(`{"name":"old"}`))
	bodies := map[string][]byte{"empty": {}, "data/small": []byte("plaintext"), "data/large": bytes.Repeat([]byte("plaintext"), 1<<18)}
	for key, body := range bodies {
		o.put("old", map[string]any{
			"name": key, "contentType": "text/csv", "contentLanguage": "de", "contentDisposition": "inline", "cacheControl": "max-age=60",
			"metadata": map[string]string{"colour": "red"},
		}, body)
	}
	w := newWorld(t, on)
	if out, err := w.bucketCommand("adopt", "moved-in", "--owner", "first-user", "--store-name", "old"); err != nil || !strings.Contains(out, "done") {
		t.Fatalf("%v: %s", err, out)
	}
	for key, body := range bodies {
		stored := o.request(http.MethodGet, "/storage/v1/b/old/o/"+url.PathEscape(key), "", nil)
		if sealed, _ := stored["metadata"].(map[string]any); sealed["cho1"] == nil || len(sealed) > 2 || stored["cacheControl"] != nil {
			t.Errorf("%q is not sealed: %v", key, stored)
		}
		out, err := w.sdk().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("moved-in"), Key: aws.String(key)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out.Body)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%q: %d bytes and %v, want %d", key, len(got), err, len(body))
		}
		headers := []string{
			aws.ToString(out.ContentType), aws.ToString(out.ContentLanguage), aws.ToString(out.ContentDisposition),
			aws.ToString(out.CacheControl), out.Metadata["colour"], aws.ToString(out.ETag),
		}
		if want := []string{"text/csv", "de", "inline", "max-age=60", "red", fmt.Sprintf(`"%x"`, md5.Sum(body))}; !slices.Equal(headers, want) {
			t.Errorf("%q: got %q, want %q", key, headers, want)
		}
		_ = out.Body.Close()
	}
}

// backendCheck runs `chatelaine backend check` and wants it to find that all is well but
// for what the cloud is known not to have, and to clean up.
func backendCheck(t *testing.T, on cloud, lacks ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), product, "backend", "check", "--json", on.url)
	cmd.Env = append(os.Environ(), on.env...)
	var progress bytes.Buffer
	cmd.Stderr = &progress
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, progress.String())
	}
	var answer struct {
		Safe     bool
		Left     []string
		Findings []struct{ Name, Result, Detail string }
	}
	if err := json.Unmarshal(out, &answer); err != nil || !answer.Safe || len(answer.Left) > 0 || len(answer.Findings) < 30 {
		t.Errorf("%v: %s", err, out)
	}
	for _, f := range answer.Findings {
		want := "yes"
		if slices.Contains(lacks, f.Name) {
			want = "no"
		}
		if f.Result != want {
			t.Errorf("%s: %s (%s), want %s", f.Name, f.Result, f.Detail, want)
		}
	}
}

func TestBackendCheckOnGoogleCloudStorage(t *testing.T) {
	if testing.Short() {
		t.Skip("needs fake-gcs-server")
	}
	t.Parallel()
	backendCheck(t, onFakeGCS(t), "etag-md5", "locks")
}

func TestBackendCheckOnAzure(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Azurite")
	}
	t.Parallel()
	backendCheck(t, onAzurite(t), "etag-md5", "keys-long", "versions", "locks")
}
