package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
	"chatelaine/kms/pkcs11"
	"chatelaine/kms/registry"
	"chatelaine/kms/service"
	"chatelaine/kms/softkey"
)

// With these a run of this test binary is a KMS, to be killed.
const (
	kmsDir    = "CHATELAINE_TEST_KMS_DIR"
	kmsModule = "CHATELAINE_TEST_KMS_MODULE" // of a PKCS#11 token; without it, software keys
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(kmsDir); dir != "" {
		if err := runKMS(dir, os.Getenv(kmsModule)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// leaseOfProcess is short, so that the test need not wait for long.
const leaseOfProcess = 2 * time.Second

func socketIn(dir string) string { return "unix://" + filepath.Join(dir, "kms.sock") }

func runKMS(dir, module string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	state, err := registry.Embed(ctx, registry.EmbedConfig{Dir: filepath.Join(dir, "state")})
	if err != nil {
		return err
	}
	provider, err := providerOf(ctx, dir, module)
	if err != nil {
		return err
	}
	manager, err := kms.NewManager(ctx, kms.Config{Registry: state, Providers: map[string]kms.Provider{"token": provider}})
	if err != nil {
		return err
	}
	if _, err := manager.EnsureKEK(ctx, manager.DefaultKEK()); err != nil {
		return err
	}
	err = manager.EnsureAccessKey(ctx, kms.NewAccessKey{ID: accessKeyID, Secret: kms.NewSecret([]byte(plantedSecret)), Principal: "alice"})
	if err != nil {
		return err
	}
	handler, err := service.New(service.Config{Manager: manager, LeaseTTL: leaseOfProcess})
	if err != nil {
		return err
	}
	listener, err := service.Listen(service.ListenConfig{Address: socketIn(dir)})
	if err != nil {
		return err
	}
	return service.Serve(ctx, listener, handler, zap.NewNop())
}

func providerOf(ctx context.Context, dir, module string) (kms.Provider, error) {
	if module == "" {
		return softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(dir, "keys"), Logger: zap.NewNop()})
	}
	return pkcs11.New(ctx, pkcs11.Config{HSM: hsm.Config{
		Module: module, Token: hsm.Selector{Label: hsmtest.Label}, PIN: hsm.NewPIN(hsmtest.PIN),
	}})
}

// process is a KMS in a process of its own.
type process struct {
	dir, module string
	child       *exec.Cmd
	stderr      *lockedBuffer
}

func (p *process) start(t testing.TB) {
	t.Helper()
	p.stderr = &lockedBuffer{}
	p.child = exec.Command(os.Args[0])
	p.child.Env = append(os.Environ(), kmsDir+"="+p.dir, kmsModule+"="+p.module)
	p.child.Stderr = p.stderr
	if err := p.child.Start(); err != nil {
		t.Fatal(err)
	}
}

func (p *process) kill() {
	_ = p.child.Process.Signal(syscall.SIGKILL)
	_ = p.child.Wait()
}

// eventually calls f until it succeeds, for 10 s at most, and returns how long it took.
func (p *process) eventually(t testing.TB, f func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := f()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%v\n%s", err, p.stderr)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAKilledKMSComesBackWithEverything(t *testing.T) {
	t.Run("software keys", func(t *testing.T) { testKilledKMS(t, "") })
	t.Run("SoftHSM", func(t *testing.T) { testKilledKMS(t, hsmtest.Token(t).Module) })
}

func testKilledKMS(t *testing.T, module string) {
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &process{dir: dir, module: module}
	p.start(t)
	t.Cleanup(func() { p.kill() })
	c := runningClient(t, p)
	p.eventually(t, func() error { return c.Ready(t.Context()) })
	b := makeBucket(t, c)
	key, err := c.Current(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	signing, err := c.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3")
	if err != nil {
		t.Fatal(err)
	}
	use := func() error { _, err := c.Current(t.Context(), b); return errors.Join(err, c.Live(key.ID)) }

	p.kill()
	killed := time.Now()
	if err := use(); err != nil {
		t.Errorf("within the lease: %v", err)
	}
	if _, err := c.ByID(t.Context(), b, [16]byte{1}); !errors.Is(err, ErrUnavailable) || time.Since(killed) > time.Second {
		t.Errorf("what is not cached: %v after %v", err, time.Since(killed))
	}
	p.start(t)
	back := p.eventually(t, func() error { _, err := c.Buckets(t.Context()); return err })
	if err := use(); err != nil && time.Since(killed) < leaseOfProcess*2/3 {
		t.Errorf("restarted within the lease: %v", err)
	}
	sameAfterRestart(t, p, b, key, signing)

	p.kill()
	time.Sleep(leaseOfProcess + 10*time.Millisecond)
	wantErr(t, use(), ErrUnavailable)
	p.start(t)
	again := p.eventually(t, use)
	t.Logf("served again %v and %v after a restart", back.Round(time.Millisecond), again.Round(time.Millisecond))
}

func runningClient(t testing.TB, p *process) *Client {
	t.Helper()
	c, err := New(Config{Address: socketIn(p.dir), GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; _ = c.Close() })
	return c
}

func makeBucket(t testing.TB, c *Client) Bucket {
	t.Helper()
	if _, err := c.RegisterBucket(t.Context(), NewBucket{Name: "bucket", Store: "files", StoreName: "p", Owner: "alice"}); err != nil {
		t.Fatal(err)
	}
	if err := c.ActivateBucket(t.Context(), "bucket"); err != nil {
		t.Fatal(err)
	}
	b, err := c.Bucket(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sameAfterRestart asks with a client that has cached nothing.
func sameAfterRestart(t *testing.T, p *process, b Bucket, key BucketKey, signing SigningKey) {
	t.Helper()
	c := runningClient(t, p)
	p.eventually(t, func() error { return c.Ready(t.Context()) })
	again, err := c.ByID(t.Context(), b, key.ID)
	if err != nil || !again.Key.Equal(key.Key) || !bytes.Equal(again.Record, key.Record) {
		t.Errorf("the key after the restart: %v", err)
	}
	current, err := c.Current(t.Context(), b)
	if err != nil || current.ID != key.ID {
		t.Errorf("the current key after the restart is %x, %v", current.ID, err)
	}
	resigning, err := c.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3")
	if err != nil {
		t.Fatal(err)
	}
	var a, z string
	signing.Use(func(b []byte) { a = string(b) })
	resigning.Use(func(b []byte) { z = string(b) })
	if a != z || len(a) != 32 {
		t.Error("another signing key after the restart")
	}
}
