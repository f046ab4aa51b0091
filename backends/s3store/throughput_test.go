package s3store_test

import (
	"bufio"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/s3store"
)

// sinkEnv makes the test binary a server that throws bodies away and serves a
// gigabyte of zeros. It is a process of its own so that the processor time of this
// one is the client's alone.
const sinkEnv = "S3STORE_TEST_SINK"

const gib = 1 << 30

// sink starts such a server and returns what a store for it needs.
func sink(t testing.TB, scheme string) s3store.Config {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sinkEnv+"="+scheme)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // the sink ends with its standard input
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	out := bufio.NewReader(stdout)
	endpoint, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	cfg := s3store.Config{
		Endpoint: strings.TrimSpace(endpoint), PathStyle: true,
		AccessKeyID: "id", SecretAccessKey: s3store.NewSecret("secret"),
	}
	if scheme == "https" {
		authority, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(cfg.CAFile, authority, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cfg
}

// serveSink is the other side. It does not return before its input ends.
func serveSink(scheme string) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(answerSink))
	server.Config.ReadTimeout = time.Minute
	if scheme == "https" {
		server.StartTLS()
	} else {
		server.Start()
	}
	fmt.Println(server.URL)
	if cert := server.Certificate(); cert != nil {
		_ = pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	os.Stdout.Close()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func answerSink(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"sink"`)
	buf := make([]byte, 1<<20)
	if r.Method == http.MethodPut {
		for {
			if _, err := r.Body.Read(buf); err != nil {
				return
			}
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(gib))
	w.Header().Set("Last-Modified", time.Unix(1, 0).UTC().Format(http.TimeFormat))
	for range gib / len(buf) {
		if _, err := w.Write(buf); err != nil {
			return
		}
	}
}

// zeros is a body of any length that costs nothing.
type zeros struct{ left, largest int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	z.left -= n
	z.largest = max(z.largest, n)
	return n, nil
}

// cpu is the processor time that this process has used.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func putGiB(t testing.TB, s backends.Store) {
	t.Helper()
	body := &zeros{left: gib}
	if _, err := s.Put(t.Context(), backends.ObjectID{Bucket: "sink", Key: "k"}, backends.Body{Reader: body, Size: gib}, nil); err != nil {
		t.Fatal(err)
	}
	if body.largest < 1<<20 {
		t.Fatalf("the largest read from the body was %d bytes, want a MiB", body.largest)
	}
}

func getGiB(t testing.TB, s backends.Store) {
	t.Helper()
	obj, err := s.Get(t.Context(), backends.ObjectID{Bucket: "sink", Key: "k"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Body.Close()
	buf := make([]byte, 1<<20)
	var n int64
	for err == nil {
		var c int
		c, err = obj.Body.Read(buf)
		n += int64(c)
	}
	if !errors.Is(err, io.EOF) || n != gib {
		t.Fatalf("got %d bytes and %v, want %d and EOF", n, err, gib)
	}
}

// BenchmarkGiB reports the processor seconds that the client side spends on a GB.
func BenchmarkGiB(b *testing.B) {
	for _, scheme := range []string{"http", "https"} {
		s := open(b, sink(b, scheme))
		for name, move := range map[string]func(testing.TB, backends.Store){"put": putGiB, "get": getGiB} {
			b.Run(scheme+"/"+name, func(b *testing.B) {
				b.SetBytes(gib)
				before := cpu(b)
				for b.Loop() {
					move(b, s)
				}
				b.ReportMetric((cpu(b)-before).Seconds()/float64(b.N)/(gib/1e9), "cpu-s/GB")
			})
		}
	}
}

// BenchmarkMinIO is the same against a real server on the same machine.
func BenchmarkMinIO(b *testing.B) {
	s := open(b, configOf(minio.MinIO(b)))
	if err := s.CreateBucket(b.Context(), "sink"); err != nil {
		b.Fatal(err)
	}
	for _, op := range []struct {
		name string
		move func(testing.TB, backends.Store)
	}{{"put", putGiB}, {"get", getGiB}} {
		b.Run(op.name, func(b *testing.B) {
			b.SetBytes(gib)
			before := cpu(b)
			for b.Loop() {
				op.move(b, s)
			}
			b.ReportMetric((cpu(b)-before).Seconds()/float64(b.N)/(gib/1e9), "cpu-s/GB")
		})
	}
}
