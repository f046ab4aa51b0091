package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// S3 is a running S3 server and an account that may do everything.
type S3 struct {
	Endpoint        string // http://127.0.0.1:port
	Region          string
	AccessKeyID     string
	SecretAccessKey string
	// Dir is where the server keeps its objects.
	Dir string
}

// MinIO starts a MinIO with one drive that lives as long as the test. The binary
// is the one that CHATELAINE_MINIO names, or is built once (test/tools). Where
// neither can be had the test is skipped, or fails if CI is set.
func MinIO(t testing.TB) *S3 {
	t.Helper()
	path, err := binary(t.Context(), "minio", "CHATELAINE_MINIO")
	if err != nil {
		unavailable(t, err)
	}
	s, stop, err := startMinIO(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s
}

// Shared is one server for all tests of a binary: it starts at its first use and
// runs until Stop, which TestMain calls. The zero value is ready.
type Shared struct {
	once  sync.Once
	s3    *S3
	stop  func()
	built error // the binary cannot be had
	err   error
}

// MinIO is like the function of that name, but starts at most one server.
func (s *Shared) MinIO(t testing.TB) *S3 {
	t.Helper()
	return s.serve(t, "minio", "CHATELAINE_MINIO", startMinIO)
}

// starter starts a server that keeps its state in dir.
type starter func(ctx context.Context, path, dir string) (*S3, func(), error)

func (s *Shared) serve(t testing.TB, tool, env string, start starter) *S3 {
	t.Helper()
	s.once.Do(func() { s.start(tool, env, start) })
	if s.built != nil {
		unavailable(t, s.built)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.s3
}

func (s *Shared) start(tool, env string, start starter) {
	ctx := context.Background() // the server outlives the test that asks first
	path, err := binary(ctx, tool, env)
	if err != nil {
		s.built = err
		return
	}
	dir, err := os.MkdirTemp("", tool+"-")
	if err != nil {
		s.err = fmt.Errorf("servers: making a folder for %s: %w", tool, err)
		return
	}
	var stop func()
	s.s3, stop, s.err = start(ctx, path, dir)
	s.stop = func() {
		if stop != nil {
			stop()
		}
		_ = os.RemoveAll(dir)
	}
}

// Stop ends the server, if it was started, and removes its folder.
func (s *Shared) Stop() {
	if s.stop != nil {
		s.stop()
	}
}

func startMinIO(ctx context.Context, path, dir string) (*S3, func(), error) {
	return again(func() (*S3, *process, error) { return tryMinIO(ctx, path, dir) })
}

// again tries again when somebody else has taken the port in between.
func again(try func() (*S3, *process, error)) (*S3, func(), error) {
	var errs []error
	for range 3 {
		s, p, err := try()
		if err == nil {
			return s, p.stop, nil
		}
		errs = append(errs, err)
		if p == nil || !strings.Contains(p.tail(), "address already in use") {
			break
		}
	}
	return nil, nil, errors.Join(errs...)
}

func tryMinIO(ctx context.Context, path, dir string) (*S3, *process, error) {
	s := newMinIO(dir)
	p, err := s.launch(ctx, path, dir)
	if err != nil {
		return nil, p, err
	}
	return s, p, nil
}

func newMinIO(dir string) *S3 {
	return &S3{
		Region: "us-east-1", AccessKeyID: rand.Text(), SecretAccessKey: rand.Text(),
		Dir: filepath.Join(dir, "objects"),
	}
}

// launch runs MinIO on what is in s.Dir, at a free port, and returns once it is ready.
func (s *S3) launch(ctx context.Context, path, dir string) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s.Endpoint = "http://" + address
	cmd := exec.Command(path, "server", "--quiet", "--address", address, s.Dir)
	cmd.Dir = dir
	cmd.Env = append(bareEnvironment(),
		"HOME="+dir,
		"MINIO_ROOT_USER="+s.AccessKeyID,
		"MINIO_ROOT_PASSWORD="+s.SecretAccessKey,
		"MINIO_REGION="+s.Region,
		"MINIO_BROWSER=off",
		"MINIO_UPDATE=off",
	)
	p, err := start("minio", filepath.Join(dir, "minio.log"), cmd)
	if err != nil {
		return nil, err
	}
	if err := p.await(ctx, s.ready); err != nil {
		p.stop()
		return p, err
	}
	return p, nil
}

// Mortal is a MinIO that is killed and comes back. One goroutine may use it.
type Mortal struct {
	S3

	path, dir string
	process   *process
}

// NewMortal is like MinIO.
func NewMortal(t testing.TB) *Mortal {
	t.Helper()
	path, err := binary(t.Context(), "minio", "CHATELAINE_MINIO")
	if err != nil {
		unavailable(t, err)
	}
	dir := t.TempDir()
	m := &Mortal{S3: *newMinIO(dir), path: path, dir: dir}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.process.stop() })
	return m
}

// Kill is kill -9. It returns when the process is gone.
func (m *Mortal) Kill() {
	_ = m.process.proc.Kill()
	<-m.process.done
}

// Start starts it on the objects that it has. Its Endpoint is another one then.
func (m *Mortal) Start(ctx context.Context) error {
	_, stop, err := again(func() (*S3, *process, error) {
		p, err := m.launch(ctx, m.path, m.dir)
		if err == nil {
			m.process = p
		}
		return &m.S3, p, err
	})
	_ = stop // Kill and the end of the test do it
	return err
}

// bareEnvironment is the environment without what configures a MinIO.
func bareEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MINIO_") && !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	return env
}

// ready is nil once the server takes reads and writes.
func (s *S3) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/minio/health/cluster", nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("servers: asking for the health of MinIO: %s", resp.Status)
	}
	return nil
}
