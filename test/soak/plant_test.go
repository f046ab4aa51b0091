package soak

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/hsm/hsmtest"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

const (
	// patience is how long a process may take to start, and all to work again after
	// the last fault. Machines that run this do other things too.
	patience = 90 * time.Second
	lease    = 5 * time.Second
	owner    = "somebody"
	replicas = 2

	plainBucket   = "soak"
	guardedBucket = "soak-guarded" // with the rollback guard
)

// buckets are shared out among clients.
func buckets() []string { return []string{plainBucket, guardedBucket} }

// plant is all that runs: MinIO behind the weather, etcd, two KMS on one token, two
// gateways, and a line from each gateway to each KMS. The first of each is an elder:
// it lives until the end, so that what it leaks is seen.
type plant struct {
	t       *testing.T
	dir     string
	product string
	user    harness.Credentials

	cloud    *servers.Mortal
	weather  *weather
	etcd     *servers.Etcd
	kms      [replicas]*member
	lines    [replicas][replicas]*harness.Cut // by gateway and KMS
	gateways [replicas]*member
}

// member is a process that is killed and started again.
type member struct {
	*harness.Process
	mu                  sync.Mutex
	admin, debug, serve string // URLs; serve: S3, of a gateway. Other ones after each start.
}

// endpoint is where a gateway is now.
func (s *member) endpoint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serve
}

func newPlant(t *testing.T, product string, seed uint64) *plant {
	t.Helper()
	dir, err := os.MkdirTemp("", "soak-") // short: sockets' names are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &plant{t: t, dir: dir, product: product, user: harness.NewCredentials()}
	p.makeToken()
	p.cloud = servers.NewMortal(t)
	p.weather = newWeather(t, seed, p.cloud.Endpoint)
	p.etcd = servers.NewEtcd(t, 1)
	t.Cleanup(p.logs)
	for i := range replicas {
		p.kms[i] = &member{}
		p.startKMS(i)
	}
	p.makeUser()
	for i := range replicas {
		p.gateways[i] = &member{}
		p.lay(i)
		p.startGateway(i)
	}
	return p
}

// logs shows the ends of all logs where something went wrong.
func (p *plant) logs() {
	if !p.t.Failed() {
		return
	}
	for i := range replicas {
		for _, m := range []*member{p.gateways[i], p.kms[i]} {
			if m != nil && m.Process != nil {
				log := m.Stderr()
				p.t.Logf("the end of the log of process %d: %s", m.PID, log[max(0, len(log)-4000):])
			}
		}
	}
}

func (p *plant) path(name string) string { return filepath.Join(p.dir, name) }

func (p *plant) write(name, text string) string {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.path(name)
}

func (p *plant) makeToken() {
	p.t.Helper()
	if err := os.MkdirAll(p.path("tokens"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	p.write("softhsm2.conf", "directories.tokendir = "+p.path("tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	p.administer(0, "kms", "init-token", "--module", hsmtest.Module(p.t), "--label", "soak",
		"--pin-file", p.write("pin", "48152637"), "--so-pin-file", p.write("so-pin", "73625184"))
}

func (p *plant) socket(i int) string { return p.path(fmt.Sprintf("kms-%d.sock", i)) }

// administer runs a command of the product, for administrators on a KMS.
func (p *plant) administer(kms int, args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.product, args...)
	cmd.Env = []string{
		"HOME=" + p.dir, "SOFTHSM2_CONF=" + p.path("softhsm2.conf"), "CHATELAINE_KMS=unix://" + p.socket(kms),
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Errorf("chatelaine %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (p *plant) makeUser() {
	p.t.Helper()
	clients, err := service.Dial(service.DialConfig{Address: "unix://" + p.socket(0), Logger: zap.NewNop()})
	if err != nil {
		p.t.Fatal(err)
	}
	defer clients.Close()
	if _, err := clients.Admin.EnsureAccessKey(p.t.Context(), &kmsv1.EnsureAccessKeyRequest{
		Id: p.user.AccessKeyID, Secret: p.user.SecretAccessKey, Principal: owner,
	}); err != nil {
		p.t.Fatal(err)
	}
}

// lay lays the lines of a gateway.
func (p *plant) lay(gateway int) {
	p.t.Helper()
	for kms := range replicas {
		line, err := harness.NewCut(p.path(fmt.Sprintf("line-%d-%d.sock", gateway, kms)), p.socket(kms))
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { _ = line.Close() })
		p.lines[gateway][kms] = line
	}
}

func (p *plant) startKMS(i int) {
	p.t.Helper()
	p.start(p.kms[i], fmt.Sprintf("kms-%d", i), "kms", []string{"SOFTHSM2_CONF=" + p.path("softhsm2.conf")},
		func(s *member, free func() string) string {
			admin := free()
			s.admin = "http://" + admin
			return fmt.Sprintf(
				"listen: unix://%s\nadmin_listen: %s\nstate: {endpoints: [%q]}\nlease: %s\ncanary: 0s\nprovider:\n  pkcs11: {module: %s, token: soak, pin_file: %s}\n",
				p.socket(i), admin, p.etcd.Endpoints[0], lease, hsmtest.Module(p.t), p.path("pin"))
		})
}

func (p *plant) startGateway(i int) {
	p.t.Helper()
	env := []string{
		"CHATELAINE_BACKEND_ACCESS_KEY_ID=" + p.cloud.AccessKeyID, "CHATELAINE_BACKEND_SECRET_ACCESS_KEY=" + p.cloud.SecretAccessKey,
	}
	p.start(p.gateways[i], fmt.Sprintf("gateway-%d", i), "gateway", env, func(s *member, free func() string) string {
		serve, admin, debug := free(), free(), free()
		s.serve, s.admin, s.debug = "http://"+serve, "http://"+admin, "http://"+debug
		return fmt.Sprintf(
			"listen: %s\nadmin_listen: %s\ndebug_listen: %s\nkms: {address: \"unix://%s,unix://%s\"}\nbackends: {cloud: {url: s3+http://%s}}\naccess_log: {file: %s}\n",
			serve, admin, debug, p.path(fmt.Sprintf("line-%d-0.sock", i)), p.path(fmt.Sprintf("line-%d-1.sock", i)),
			p.weather.host(), p.path(fmt.Sprintf("access-%d.log", i)))
	})
}

// start starts a service, at free addresses, and returns when it is ready. Who finds a
// port taken tries others.
func (p *plant) start(s *member, name, command string, env []string, config func(s *member, free func() string) string) {
	p.t.Helper()
	var err error
	for range 3 {
		s.mu.Lock()
		file := p.write(name+".yaml", config(s, p.free))
		s.mu.Unlock()
		s.Process, err = harness.Start(p.product, p.path(name), []string{command, "--config", file}, env)
		if err != nil {
			break
		}
		p.t.Cleanup(s.Process.Kill)
		err = s.Await(p.t.Context(), patience, func(ctx context.Context) error { return harness.Ready(ctx, s.admin) })
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			break
		}
	}
	if err != nil {
		p.t.Errorf("starting %s: %v", name, err)
	}
}

func (p *plant) free() string {
	address, err := harness.FreeAddress()
	if err != nil {
		p.t.Error(err)
	}
	return address
}

// makeBuckets makes the buckets, once the gateways are there.
func (p *plant) makeBuckets() {
	p.t.Helper()
	c := newClient(p)
	if a, err := c.send(0, harness.Request{Method: http.MethodPut, Path: "/" + plainBucket}); err != nil || a.status != http.StatusOK {
		p.t.Fatalf("making a bucket: got %+v, %v", a, err)
	}
	p.administer(0, "bucket", "create", guardedBucket, "--owner", owner, "--backend", "cloud", "--rollback-guard")
}
