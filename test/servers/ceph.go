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
	"testing"
	"time"

	"github.com/google/uuid"
)

// CephEnv names the variable of the environment that, if it is set, has Ceph(t) start
// one. It takes a quarter of a minute to start and a minute and a half to pass the
// contract: `make test-ceph` sets it, and installs what it needs.
const CephEnv = "CHATELAINE_TEST_CEPH"

// Ceph starts a cluster of one monitor, one object daemon that keeps all in memory, and
// a gateway for S3, at most once. Without CephEnv the test is skipped. The programs are
// those of Debian's ceph-mon, ceph-osd, ceph-common and radosgw.
func (s *Shared) Ceph(t testing.TB) *S3 {
	t.Helper()
	if os.Getenv(CephEnv) == "" {
		t.Skip("starting Ceph takes long: make test-ceph does it")
	}
	s.once.Do(func() { s.started("ceph", startCeph) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.s3
}

// started starts a server that needs no binary of ours.
func (s *Shared) started(name string, start func(ctx context.Context, dir string) (*S3, func(), error)) {
	dir, err := os.MkdirTemp("", name+"-")
	if err != nil {
		s.err = fmt.Errorf("servers: making a folder for %s: %w", name, err)
		return
	}
	var stop func()
	s.s3, stop, s.err = start(context.Background(), dir)
	s.stop = func() {
		if stop != nil {
			stop()
		}
		_ = os.RemoveAll(dir)
	}
}

// cephTakes bounds each step of making the cluster.
const cephTakes = time.Minute

// ceph is a cluster that is being made in dir.
type ceph struct {
	dir, fsid, monitor, gateway string
	running                     []*process // in the order of their start
}

func startCeph(ctx context.Context, dir string) (*S3, func(), error) {
	c := &ceph{dir: dir, fsid: uuid.NewString()}
	s := &S3{Region: "us-east-1", AccessKeyID: rand.Text(), SecretAccessKey: rand.Text(), Dir: dir}
	if err := c.start(ctx, s); err != nil {
		c.stop()
		return nil, nil, err
	}
	s.Endpoint = "http://" + c.gateway
	return s, c.stop, nil
}

func (c *ceph) stop() {
	for len(c.running) > 0 {
		last := len(c.running) - 1
		c.running[last].stop()
		c.running = c.running[:last]
	}
}

func (c *ceph) start(ctx context.Context, s *S3) (err error) {
	for _, address := range []*string{&c.monitor, &c.gateway} {
		if *address, err = freeAddress(); err != nil {
			return err
		}
	}
	if err := c.configure(); err != nil {
		return err
	}
	disk := uuid.NewString()
	for _, step := range []func() error{
		func() error {
			return c.command(ctx, "ceph-authtool", "--create-keyring", c.file("keyring"), "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
		},
		func() error {
			return c.command(ctx, "ceph-authtool", c.file("keyring"), "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *")
		},
		func() error {
			return c.command(ctx, "monmaptool", "--create", "--fsid", c.fsid, "--addv", "a", "[v2:"+c.monitor+"]", c.file("monmap"))
		},
		func() error {
			return c.command(ctx, "ceph-mon", "--mkfs", "-i", "a", "--keyring", c.file("keyring"), "--monmap", c.file("monmap"))
		},
		func() error { return c.run("ceph-mon", "-f", "-i", "a") },
		func() error { return c.command(ctx, "ceph", "--connect-timeout", "30", "osd", "new", disk) },
		func() error {
			return c.command(ctx, "ceph", "auth", "get-or-create", "osd.0", "mon", "allow profile osd", "osd", "allow *", "-o", c.file("osd.key"))
		},
		func() error {
			return c.command(ctx, "ceph-authtool", c.file("keyring"), "--import-keyring", c.file("osd.key"))
		},
		func() error { return c.command(ctx, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk) },
		func() error { return c.run("ceph-osd", "-f", "-i", "0") },
		func() error {
			return c.command(ctx, "radosgw-admin", "user", "create", "--uid=test", "--display-name=test", "--access-key="+s.AccessKeyID, "--secret-key="+s.SecretAccessKey)
		},
		func() error { return c.run("radosgw", "-f", "-n", "client.admin") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return c.running[len(c.running)-1].await(ctx, c.ready)
}

func (c *ceph) file(name string) string { return filepath.Join(c.dir, name) }

// configure writes the cluster's configuration. One copy of everything, few placement
// groups and no manager make it start in seconds.
func (c *ceph) configure() error {
	text := strings.NewReplacer("DIR", c.dir, "FSID", c.fsid, "MONITOR", c.monitor, "GATEWAY", c.gateway).Replace(`[global]
fsid = FSID
mon host = [v2:MONITOR]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = DIR/keyring
run dir = DIR
admin socket =
log file = DIR/$name.log
mon cluster log file =
mon data = DIR/mon
mon allow pool size one = true
mon data avail crit = 0
mon data avail warn = 0
mon max pg per osd = 10000
osd data = DIR/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
rgw data = DIR/rgw
rgw frontends = beast endpoint=GATEWAY
rgw enable ops log = false
`)
	for _, folder := range []string{"mon", "osd", "rgw"} {
		if err := os.MkdirAll(c.file(folder), 0o700); err != nil {
			return fmt.Errorf("servers: making a folder for Ceph: %w", err)
		}
	}
	if err := os.WriteFile(c.file("ceph.conf"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("servers: configuring Ceph: %w", err)
	}
	return nil
}

// command runs one of Ceph's programs to its end.
func (c *ceph) command(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, cephTakes)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = append(without("CEPH_"), "CEPH_CONF="+c.file("ceph.conf")), c.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("servers: running %s %s: %w: %s", name, args[0], errors.Join(err, ctx.Err()), out)
	}
	return nil
}

// run starts one of Ceph's servers.
func (c *ceph) run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = append(without("CEPH_"), "CEPH_CONF="+c.file("ceph.conf")), c.dir
	p, err := start(name, c.file(name+".out"), cmd)
	if err == nil {
		c.running = append(c.running, p)
	}
	return err
}

// ready is nil once the gateway answers anonymous callers.
func (c *ceph) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.gateway, nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
