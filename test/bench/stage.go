package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

// room is what a run may need of a folder in memory: the objects of the largest cell,
// sealed and bare, and MinIO's own.
const room = 8 << 30

// stage is a MinIO, and a gateway that keeps its objects there.
type stage struct {
	dir           string
	minio         func()
	gateway       *harness.Gateway
	bare, through *target
}

// openStage starts both. The caller calls close.
func openStage(ctx context.Context, o *options) (_ *stage, err error) {
	s := &stage{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp(o.folder(), "chatelaine-bench-"); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	minio, stop, err := servers.StartMinIO(ctx, filepath.Join(s.dir))
	if err != nil {
		return nil, err
	}
	s.minio = stop
	if s.gateway, err = startGateway(ctx, s.dir, minio, o.kek); err != nil {
		return nil, err
	}
	user := harness.Credentials{AccessKeyID: minio.AccessKeyID, SecretAccessKey: minio.SecretAccessKey}
	s.bare = newTarget("bare MinIO", minio.Endpoint, user, 0)
	s.through = newTarget("the gateway", s.gateway.Endpoint, s.gateway.User, s.gateway.PID)
	if o.guard {
		s.through.bucket = "bench-through"
		return s, errors.Join(s.bare.makeBucket(ctx, "bench-bare"), s.makeGuarded(ctx))
	}
	return s, errors.Join(s.bare.makeBucket(ctx, "bench-bare"), s.through.makeBucket(ctx, "bench-through"))
}

// makeGuarded makes the gateway's bucket with the rollback guard, as an administrator does.
func (s *stage) makeGuarded(ctx context.Context) error {
	socket := "unix://" + filepath.Join(s.gateway.Home(), "run", "kms.sock")
	cmd := exec.CommandContext(ctx, s.gateway.Binary, "bucket", "create", s.through.bucket, "--owner", "first-user", "--rollback-guard", "--kms", socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a guarded bucket: %w: %s", err, out)
	}
	return nil
}

// folder is where data goes: what the flag says, or memory where there is room.
func (o *options) folder() string {
	if o.dir != "" {
		return o.dir
	}
	var at syscall.Statfs_t
	if syscall.Statfs("/dev/shm", &at) == nil && at.Bavail*uint64(at.Bsize) > room {
		return "/dev/shm"
	}
	return os.TempDir()
}

func startGateway(ctx context.Context, dir string, minio *servers.S3, kek string) (*harness.Gateway, error) {
	product, err := harness.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	return harness.Up(ctx, &harness.Options{
		Binary: product, Data: filepath.Join(dir, "data"), KEK: kek,
		Backend: "s3+http://" + strings.TrimPrefix(minio.Endpoint, "http://"),
		Env: []string{
			"CHATELAINE_BACKEND_ACCESS_KEY_ID=" + minio.AccessKeyID,
			"CHATELAINE_BACKEND_SECRET_ACCESS_KEY=" + minio.SecretAccessKey,
		},
	})
}

func (s *stage) close() {
	if s.gateway != nil {
		if err := s.gateway.Stop(30 * time.Second); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	if s.minio != nil {
		s.minio()
	}
	_ = os.RemoveAll(s.dir)
}

// target is one end of the comparison.
type target struct {
	name   string
	client *harness.Client
	pid    int // of the process whose cost is measured; 0 for none
	bucket string
	stored map[int64]int64 // number of objects by size
}

func newTarget(name, endpoint string, user harness.Credentials, pid int) *target {
	return &target{
		name: name, pid: pid, stored: map[int64]int64{},
		client: &harness.Client{Endpoint: endpoint, User: user, HTTP: harness.NewHTTP()},
	}
}

func (t *target) makeBucket(ctx context.Context, name string) error {
	t.bucket = name
	_, err := t.send(ctx, harness.Request{Method: http.MethodPut, Path: "/" + name})
	return err
}

// send sends a request and reads the answer, which must be 200.
func (t *target) send(ctx context.Context, r harness.Request) (int64, error) {
	resp, err := t.client.Do(ctx, r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := harness.Drain(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s", r.Method, r.Path, resp.Status)
	}
	return n, err
}
