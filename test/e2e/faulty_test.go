package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

// hsmDeadline is what the KMS waits for the module here. A call that has not returned
// for three times as long ends the KMS.
const hsmDeadline = 2 * time.Second

// faultyModule compiles a PKCS#11 module that passes on to SoftHSM until it is told to
// misbehave.
func faultyModule(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "faulty.so")
	command(t, nil, program(t, "gcc"), "-shared", "-fPIC", "-O0", "-o", out, filepath.Join("testdata", "faulty.c"), "-ldl")
	return out
}

// faults is how a process with the faulty module is told to misbehave.
type faults struct {
	t   *testing.T
	dir string
}

func newFaults(t *testing.T, dir string) *faults {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &faults{t, dir}
}

func (f *faults) env() []string {
	return []string{"FAULTY_CONTROL=" + f.dir, "FAULTY_TARGET=" + softHSM(f.t)}
}

// order has calls of a token hang or crash; "*" means all tokens.
func (f *faults) order(what, token string) {
	f.t.Helper()
	aside := filepath.Join(f.dir, "."+what)
	if err := os.WriteFile(aside, []byte(token), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(aside, filepath.Join(f.dir, what)); err != nil {
		f.t.Fatal(err)
	}
}

// mend has processes that start from now on behave.
func (f *faults) mend() {
	f.t.Helper()
	if err := os.Remove(filepath.Join(f.dir, "hang")); err != nil {
		f.t.Fatal(err)
	}
}

// newFaultySite is two KMS on the faulty module, each with faults of its own, and one
// gateway. KEK main is in token one, and KEK other in token two.
func newFaultySite(t *testing.T) (*site, []*faults) {
	t.Helper()
	requireSoftHSM(t)
	s := &site{
		cluster: &cluster{t: t, dir: shortDir(t), user: harness.NewCredentials()},
		etcd:    servers.NewEtcd(t, 1), lease: lease,
	}
	s.cloud.url = "file://" + filepath.Join(s.dir, "cloud")
	s.makeTokens("one", "two")
	module := faultyModule(t)
	pkcs11 := func(token string) string {
		return fmt.Sprintf("{pkcs11: {module: %s, token: %s, pin_file: %s, deadline: %s}}", module, token, s.path("pin"), hsmDeadline)
	}
	s.keys = fmt.Sprintf("provider: %s\nproviders: {second: %s}", pkcs11("one"), pkcs11("two"))
	var all []*faults
	for i := range 2 {
		all = append(all, newFaults(t, s.path(fmt.Sprintf("faults-%d", i))))
	}
	s.planeEnv = func(i int) []string { return append(s.cluster.env(), all[i].env()...) }
	for i := range 2 {
		s.startPlane(i)
	}
	s.makeUserAt(0)
	s.startGatewayAt(0, s.plane(0)+","+s.plane(1))
	s.administer("key", "create", "other", "--provider", "second")
	return s, all
}

// administer runs a command for administrators.
func (s *site) administer(args ...string) string {
	s.t.Helper()
	return command(s.t, []string{"CHATELAINE_KMS=" + s.plane(0)}, product, args...)
}

// TestAModuleThatHangs hangs in the calls of one token of two. Requests that need it
// fail at their deadline, keys in the other token go on, the KMS ends so that a
// supervisor starts it anew, and the other replica of it takes over meanwhile.
func TestAModuleThatHangs(t *testing.T) {
	s, faulty := newFaultySite(t)
	body := contentBytes(1, 50_000)
	get := func(bucket string) harness.Request {
		return harness.Request{Method: http.MethodGet, Path: "/" + bucket + "/object"}
	}
	for bucket, kek := range map[string]string{"hanging": "main", "living": "other"} {
		// Nothing of a strict bucket is cached: each request is a call of the HSM.
		s.administer("bucket", "create", bucket, "--owner", "somebody", "--backend", "cloud", "--kek", kek, "--profile", "strict")
		put := get(bucket)
		put.Method, put.Body, put.Size = http.MethodPut, bytes.NewReader(body), int64(len(body))
		awaitServing(t, s, 0, put, stopPatience) // the gateway makes the bucket in the backend first
	}

	faulty[0].order("hang", "one")
	began := time.Now()
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			a, err := trySend(t, s.replicas[0].client, get("hanging"))
			if err != nil || a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Errorf("under the token that hangs: got %+v, %v, want 503 and Retry-After", a, err)
			}
		})
	}
	for range 10 {
		if a := s.send(0, get("living")).want(http.StatusOK); !bytes.Equal(a.body, body) {
			t.Error("under the other token: other bytes")
		}
	}
	others := time.Since(began)
	wait.Wait()
	failed := time.Since(began)
	if log, want := s.planes[0].Stderr(), fmt.Sprintf("has not answered for %v", hsmDeadline); !strings.Contains(log, want) {
		t.Errorf("the log does not say %q: %s", want, tail(log, 2000))
	}

	code, err := s.planes[0].Wait(stopPatience)
	if err != nil || code != 1 {
		t.Fatalf("the KMS whose module hangs: got code %d, %v, want 1, after which it is started again", code, err)
	}
	ended := time.Since(began)
	for _, bucket := range []string{"hanging", "living"} {
		awaitServing(t, s, 0, get(bucket), stopPatience)
	}
	t.Logf("requests failed after %v; ten under the other token took %v; the KMS ended after %v; the other one served %v after that",
		failed.Round(time.Millisecond), others.Round(time.Millisecond), ended.Round(time.Millisecond), (time.Since(began) - ended).Round(time.Millisecond))

	faulty[0].mend()
	s.startPlane(0) // as its supervisor does
	s.planes[1].Kill()
	for _, bucket := range []string{"hanging", "living"} {
		awaitServing(t, s, 0, get(bucket), stopPatience)
		if a := s.send(0, get(bucket)).want(http.StatusOK); !bytes.Equal(a.body, body) {
			t.Errorf("%s: other bytes", bucket)
		}
	}
}

// TestAModuleThatCrashes takes the KMS of `chatelaine up` with it. A download and an
// upload that are under way go on, connections stay open, and the KMS is started again.
func TestAModuleThatCrashes(t *testing.T) {
	faulty := newFaults(t, filepath.Join(t.TempDir(), "faults"))
	module := faultyModule(t)
	w := newWorld(t, cloud{}, func(o *harness.Options) {
		o.Env = append(append(o.Env, faulty.env()...), "CHATELAINE_SOFTHSM_MODULE="+module)
	})
	client, dialled := countedClient(w)
	path := "/" + w.bucket() + "/object"
	const size = 24 << 20
	send(t, client, harness.Request{Method: http.MethodPut, Path: path, Body: content(1, size), Size: size}).want(200)

	download, err := client.Do(t.Context(), harness.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer download.Body.Close()
	begin, rest := make([]byte, 1<<20), &bytes.Buffer{}
	if _, err := io.ReadFull(download.Body, begin); err != nil {
		t.Fatal(err)
	}
	upload := beginUpload(t, client, path+"-2", size)
	send(t, client, harness.Request{Method: http.MethodHead, Path: path}).want(200)
	connections := dialled.Load()

	old := w.kms()
	faulty.order("crash", "*")
	back := w.servedAgain(client, old)
	if connections < 3 || dialled.Load() != connections {
		t.Errorf("%d connections were opened, want the %d of before the crash", dialled.Load(), connections)
	}
	if _, err := io.Copy(rest, download.Body); err != nil {
		t.Errorf("the download broke: %v", err)
	}
	if err := sameBytes(io.MultiReader(bytes.NewReader(begin), rest), content(1, size)); err != nil {
		t.Errorf("the download: %v", err)
	}
	upload.end().want(200)
	if got := send(t, client, harness.Request{Method: http.MethodGet, Path: path + "-2"}).want(200); sameBytes(bytes.NewReader(got.body), content(2, size)) != nil {
		t.Error("the upload: other bytes")
	}
	if !strings.Contains(w.Stderr(), "SIGSEGV") {
		t.Error("nothing in the log says that the module crashed")
	}
	t.Logf("served again %v after the crash", back.Round(time.Millisecond))
}

// countedClient is a client of a world that counts the connections that it opens.
func countedClient(w *world) (*harness.Client, *atomic.Int64) {
	var dialled atomic.Int64
	client := w.client()
	client.HTTP.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return client, &dialled
}

// halfUpload is an upload of which the second half is held back.
type halfUpload struct {
	t       *testing.T
	release chan struct{}
	done    chan *answer
}

// beginUpload sends the first half of content(2, size).
func beginUpload(t *testing.T, client *harness.Client, path string, size int64) *halfUpload {
	t.Helper()
	u := &halfUpload{t, make(chan struct{}), make(chan *answer, 1)}
	reader, writer := io.Pipe()
	half := make(chan struct{})
	go func() {
		source := content(2, size)
		_, err := io.CopyN(writer, source, size/2)
		close(half)
		<-u.release
		if err == nil {
			_, err = io.Copy(writer, source)
		}
		writer.CloseWithError(err)
	}()
	go func() {
		a, err := trySend(t, client, harness.Request{Method: http.MethodPut, Path: path, Body: reader, Size: size})
		if err != nil {
			t.Errorf("the upload broke: %v", err)
			a = &answer{t: t}
		}
		u.done <- a
	}()
	<-half
	return u
}

// end sends the second half.
func (u *halfUpload) end() *answer {
	close(u.release)
	return <-u.done
}

// servedAgain makes a bucket, which the HSM must do, until it can be made again by
// another KMS than the old one.
func (w *world) servedAgain(client *harness.Client, old int) time.Duration {
	w.t.Helper()
	began := time.Now()
	for time.Since(began) < stopPatience {
		a := send(w.t, client, harness.Request{Method: http.MethodPut, Path: "/" + newName()})
		if children, err := harness.Children(w.PID); a.status == http.StatusOK && err == nil && len(children) == 1 && children[0] != old {
			return time.Since(began)
		}
		if a.status != http.StatusOK && (a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "") {
			w.t.Fatalf("while the KMS is away: got status %d: %.300s", a.status, a.body)
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatal("it never served again")
	return 0
}
