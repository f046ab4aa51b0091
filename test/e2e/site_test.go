package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

// site is the product at scale: an etcd of three members, two KMS, three gateways. The
// last gateway speaks to the KMS over lines that can be cut.
type site struct {
	*cluster
	etcd     *servers.Etcd
	lease    time.Duration
	keys     string               // where a KMS has its KEKs, as lines of its configuration
	planeEnv func(i int) []string // of a KMS; nil: nothing more
	planes   []*harness.Process   // the KMS
	lines    []*harness.Cut
}

func newSite(t *testing.T, lease time.Duration) *site {
	t.Helper()
	s := &site{
		cluster: &cluster{t: t, dir: shortDir(t), user: harness.NewCredentials()},
		etcd:    servers.NewEtcd(t, 3), lease: lease,
	}
	s.cloud.url = "file://" + filepath.Join(s.dir, "cloud")
	s.keys = fmt.Sprintf("provider: {softkey: {dir: %s}}", s.path("keys"))
	for i := range 2 {
		s.startPlane(i)
	}
	s.makeUserAt(0)
	for i := range 2 {
		line, err := harness.NewCut(s.path(fmt.Sprintf("line-%d.sock", i)), s.path(fmt.Sprintf("kms-%d.sock", i)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = line.Close() })
		s.lines = append(s.lines, line)
	}
	for i, sockets := range [][]string{{"kms-0", "kms-1"}, {"kms-1", "kms-0"}, {"line-0", "line-1"}} {
		s.startGatewayAt(i, "unix://"+s.path(sockets[0]+".sock")+",unix://"+s.path(sockets[1]+".sock"))
	}
	return s
}

// startPlane starts a KMS. All have the same keys, as of one HSM.
func (s *site) startPlane(i int) {
	s.t.Helper()
	name := fmt.Sprintf("kms-%d", i)
	config := s.write(name+".yaml", fmt.Sprintf(
		"listen: %s\nstate: {endpoints: [%s]}\nlease: %s\ncanary: 0s\n%s\n",
		s.plane(i), `"`+strings.Join(s.etcd.Endpoints, `", "`)+`"`, s.lease, s.keys))
	var env []string
	if s.planeEnv != nil {
		env = s.planeEnv(i)
	}
	p, err := harness.Start(product, s.path(name), []string{"kms", "--config", config}, env)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(p.Kill)
	if i == len(s.planes) {
		s.planes = append(s.planes, p)
	} else {
		s.planes[i] = p
	}
	if err := p.Await(s.t.Context(), stopPatience, func(ctx context.Context) error {
		return s.ask(i, func(c *service.Clients) error {
			_, err := c.Admin.Status(ctx, &kmsv1.StatusRequest{})
			return err
		})
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) plane(i int) string { return "unix://" + s.path(fmt.Sprintf("kms-%d.sock", i)) }

// ask calls a KMS as an administrator.
func (s *site) ask(i int, call func(*service.Clients) error) error {
	clients, err := service.Dial(service.DialConfig{Address: s.plane(i), Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer clients.Close()
	return call(clients)
}

func (s *site) makeUserAt(i int) {
	s.t.Helper()
	err := s.ask(i, func(c *service.Clients) error {
		_, err := c.Admin.EnsureAccessKey(s.t.Context(), &kmsv1.EnsureAccessKeyRequest{
			Id: s.user.AccessKeyID, Secret: s.user.SecretAccessKey, Principal: "somebody",
		})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) startGatewayAt(i int, kms string) {
	s.t.Helper()
	listen, admin := freeAddress(s.t), freeAddress(s.t)
	name := fmt.Sprintf("gateway-%d", i)
	config := s.write(name+".yaml", fmt.Sprintf(
		"listen: %s\nadmin_listen: %s\nkms: {address: %q}\nbackends: {cloud: {url: %s}}\naccess_log: {file: %s}\n",
		listen, admin, kms, s.cloud.url, s.path(name+"-access.log")))
	p, err := harness.Start(product, s.path(name), []string{"gateway", "--config", config}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		p.Kill()
		if s.t.Failed() {
			s.t.Logf("the end of the log of %s: %s", name, tail(p.Stderr(), 2500))
		}
	})
	r := &replica{p, rawClient("http://"+listen, s.user), "http://" + admin}
	s.replicas = append(s.replicas, r)
	if err := p.Await(s.t.Context(), stopPatience, r.ready); err != nil {
		s.t.Fatal(err)
	}
}

// block blocks the KEK through a KMS, and says when the command returned.
func (s *site) block(i int) (*kmsv1.AwaitResponse, time.Time) {
	s.t.Helper()
	var answer *kmsv1.BlockKEKResponse
	err := s.ask(i, func(c *service.Clients) (err error) {
		answer, err = c.Keys.BlockKEK(s.t.Context(), &kmsv1.BlockKEKRequest{Name: "main", Change: &kmsv1.Change{Reason: "a test"}})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.GetEffect(), time.Now()
}

func (s *site) unblock(i int) {
	s.t.Helper()
	err := s.ask(i, func(c *service.Clients) error {
		_, err := c.Keys.UnblockKEK(s.t.Context(), &kmsv1.UnblockKEKRequest{Name: "main", Change: &kmsv1.Change{Reason: "a test"}})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
