package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/test/e2e/harness"
)

// lease is the shortest that the KMS takes: tests wait for it to run out.
const lease = 3 * time.Second

// tokenPIN is the PIN of the tokens that are made here.
const tokenPIN = "48152637"

// cluster is the product in parts: a KMS on a SoftHSM token, and gateways that share
// nothing but it and the cloud.
type cluster struct {
	t         *testing.T
	dir       string
	user      harness.Credentials
	cloud     cloud
	others    string        // further backends of the gateways: ", NAME: {url: ...}"
	ttl       time.Duration // of bucket keys; 0: the product's default
	module    string        // of PKCS#11; empty: SoftHSM's
	pkcs11    string        // more settings of it
	moduleEnv []string      // of processes that load it
	providers string        // more of them, as lines of the configuration
	kms       *harness.Process
	replicas  []*replica
}

// replica is one gateway.
type replica struct {
	*harness.Process
	client *harness.Client
	admin  string
}

func newCluster(t *testing.T, c cloud, replicas int) *cluster {
	t.Helper()
	k := planCluster(t, c)
	k.start(replicas)
	return k
}

// planCluster is newCluster without the start.
func planCluster(t *testing.T, c cloud) *cluster {
	t.Helper()
	requireSoftHSM(t)
	k := &cluster{t: t, dir: shortDir(t), user: harness.NewCredentials(), cloud: c}
	if k.cloud.url == "" {
		k.cloud.url = "file://" + filepath.Join(k.dir, "cloud")
	}
	return k
}

func (k *cluster) start(replicas int) {
	k.t.Helper()
	k.makeTokens("cluster")
	if k.module == "" {
		k.module = softHSM(k.t)
	}
	k.startKMS()
	k.t.Cleanup(func() { k.kms.Kill() })
	k.makeUser()
	for i := range replicas {
		k.replicas = append(k.replicas, k.startGateway(i))
	}
}

// shortDir is a folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (k *cluster) path(name string) string { return filepath.Join(k.dir, name) }
func (k *cluster) socket() string          { return "unix://" + k.path("kms.sock") }
func (k *cluster) env() []string           { return []string{"SOFTHSM2_CONF=" + k.path("softhsm2.conf")} }

func (k *cluster) write(name, text string) string {
	k.t.Helper()
	if err := os.WriteFile(k.path(name), []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return k.path(name)
}

// makeTokens makes tokens of SoftHSM that have one PIN.
func (k *cluster) makeTokens(labels ...string) {
	k.t.Helper()
	if err := os.MkdirAll(k.path("tokens"), 0o700); err != nil {
		k.t.Fatal(err)
	}
	k.write("softhsm2.conf", "directories.tokendir = "+k.path("tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	pin, officer := k.write("pin", tokenPIN), k.write("so-pin", "73625184")
	for _, label := range labels {
		command(k.t, k.env(), product, "kms", "init-token", "--module", softHSM(k.t), "--label", label, "--pin-file", pin, "--so-pin-file", officer)
	}
}

// startKMS starts the KMS, on the state that it has.
func (k *cluster) startKMS() {
	k.t.Helper()
	text := fmt.Sprintf(
		"listen: %s\nstate: {dir: %s}\nlease: %s\nprovider:\n  pkcs11: {module: %s, token: cluster, pin_file: %s%s}\n%s",
		k.socket(), k.path("etcd"), lease, k.module, k.path("pin"), k.pkcs11, k.providers)
	if k.ttl != 0 {
		text += fmt.Sprintf("ttl: %s\n", k.ttl)
	}
	config := k.write("kms.yaml", text)
	p, err := harness.Start(product, k.path("kms"), []string{"kms", "--config", config}, append(k.env(), k.moduleEnv...))
	if err != nil {
		k.t.Fatal(err)
	}
	k.kms = p
	if err := p.Await(k.t.Context(), stopPatience, k.status); err != nil {
		k.t.Fatal(err)
	}
}

// admin calls the KMS as an administrator.
func (k *cluster) admin(call func(*service.Clients) error) error {
	clients, err := service.Dial(service.DialConfig{Address: k.socket(), Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer clients.Close()
	return call(clients)
}

func (k *cluster) status(ctx context.Context) error {
	return k.admin(func(c *service.Clients) error {
		_, err := c.Admin.Status(ctx, &kmsv1.StatusRequest{})
		return err
	})
}

func (k *cluster) makeUser() {
	k.t.Helper()
	err := k.admin(func(c *service.Clients) error {
		_, err := c.Admin.EnsureAccessKey(k.t.Context(), &kmsv1.EnsureAccessKeyRequest{
			Id: k.user.AccessKeyID, Secret: k.user.SecretAccessKey, Principal: "somebody",
		})
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *cluster) startGateway(i int) *replica {
	k.t.Helper()
	listen, admin := freeAddress(k.t), freeAddress(k.t)
	name := fmt.Sprintf("gateway-%d", i)
	config := k.write(name+".yaml", fmt.Sprintf(
		"listen: %s\nadmin_listen: %s\nkms: {address: %s}\ndefault_backend: cloud\nbackends: {cloud: {url: %s}%s}\naccess_log: {file: %s}\n",
		listen, admin, k.socket(), k.cloud.url, k.others, k.path(name+"-access.log")))
	p, err := harness.Start(product, k.path(name), []string{"gateway", "--config", config}, k.cloud.env)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() {
		if err := p.Stop(stopPatience); err != nil {
			k.t.Error(err)
		}
		if k.t.Failed() {
			k.t.Logf("the end of the log of %s: %s", name, tail(p.Stderr(), 2500))
		}
	})
	r := &replica{p, rawClient("http://"+listen, k.user), "http://" + admin}
	if err := p.Await(k.t.Context(), stopPatience, r.ready); err != nil {
		k.t.Fatal(err)
	}
	return r
}

func (r *replica) ready(ctx context.Context) error { return harness.Ready(ctx, r.admin) }

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := harness.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// send has a replica, by number, answer a request.
func (k *cluster) send(i int, r harness.Request) *answer {
	k.t.Helper()
	return send(k.t, k.replicas[i%len(k.replicas)].client, r)
}

// bucket makes a bucket through the first replica.
func (k *cluster) bucket() string {
	k.t.Helper()
	name := newName()
	k.send(0, harness.Request{Method: "PUT", Path: "/" + name}).want(200)
	return name
}
