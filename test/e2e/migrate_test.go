package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

// TestAKeyMovesByOneCommand moves the KEK of all buckets from one token of SoftHSM to
// another of the same module, and from there to Vault, with `chatelaine key migrate`.
// Clients read all the while, a bucket of which nothing is cached too, and no read
// fails. In the end nothing needs the tokens.
func TestAKeyMovesByOneCommand(t *testing.T) {
	vault := servers.StartVault(t, servers.VaultOptions{})
	k := planCluster(t, cloud{})
	k.providers = fmt.Sprintf("providers:\n  second: {pkcs11: {module: %s, token: second, pin_file: %s}}\n  vault: {transit: {address: %q, token: {file: %s}}}\n",
		softHSM(t), k.path("pin"), vault.Address, k.write("vault-token", vault.Token))
	k.makeTokens("second")
	k.start(1)
	m := newMovers(k)
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	for _, path := range m.paths {
		wait.Go(func() { m.readOn(ctx, path) })
	}
	for i, to := range []string{"second", "vault"} {
		before := m.reads.Load()
		out := k.administer("key", "migrate", "main", "--to", to, "--reason", "we move house")
		if got := m.reads.Load(); got == before {
			t.Errorf("to %s: nothing was read meanwhile", to)
		}
		m.wantReport(out, i+2)
		if shown := k.administer("key", "show", "main"); !strings.Contains(shown, "we move house") {
			t.Errorf("to %s: the history does not say why: %s", to, shown)
		}
	}
	if err := os.Rename(k.path("tokens"), k.path("tokens-away")); err != nil {
		t.Fatal(err)
	}
	for _, path := range m.paths {
		m.read(path)
	}
	m.put(m.paths[0]+"-new", m.body)
	t.Logf("%d reads", m.reads.Load())
}

// administer runs a command for administrators.
func (k *cluster) administer(args ...string) string {
	k.t.Helper()
	return command(k.t, []string{"CHATELAINE_KMS=" + k.socket()}, product, args...)
}

// movers are clients who must not notice that a key moves.
type movers struct {
	*cluster
	body  []byte
	paths []string // of objects in several buckets, one of them strict
	reads atomic.Int64
}

func newMovers(k *cluster) *movers {
	k.t.Helper()
	m := &movers{cluster: k, body: contentBytes(1, 100_000)}
	for range 3 {
		m.paths = append(m.paths, "/"+k.bucket()+"/object")
	}
	strict := strings.Split(m.paths[0], "/")[1]
	k.administer("bucket", "set", strict, "--profile", "strict")
	for _, path := range m.paths {
		m.put(path, m.body)
	}
	return m
}

func (m *movers) put(path string, body []byte) {
	m.t.Helper()
	m.send(0, harness.Request{Method: http.MethodPut, Path: path, Body: bytes.NewReader(body), Size: int64(len(body))}).want(http.StatusOK)
}

// read reads an object, and tells whether it is there and right.
func (m *movers) read(path string) bool {
	m.t.Helper()
	a, err := trySend(m.t, m.replicas[0].client, harness.Request{Method: http.MethodGet, Path: path})
	if err != nil || a.status != http.StatusOK || !bytes.Equal(a.body, m.body) {
		m.t.Errorf("reading %s: got %+v, %v", path, a, err)
		return false
	}
	m.reads.Add(1)
	return true
}

func (m *movers) readOn(ctx context.Context, path string) {
	for ctx.Err() == nil && m.read(path) {
		time.Sleep(5 * time.Millisecond)
	}
}

// wantReport wants the report of a migration to say that of so many versions the last
// is the primary and the others are not needed.
func (m *movers) wantReport(report string, versions int) {
	m.t.Helper()
	for v := 1; v <= versions; v++ {
		want := fmt.Sprintf(`(?m)^main +%d +deactivated +nothing$`, v)
		if v == versions {
			want = fmt.Sprintf(`(?m)^main +%d +active +.*\(it is the primary\)$`, v)
		}
		if !regexp.MustCompile(want).MatchString(report) {
			m.t.Errorf("the report has no line %q:\n%s", want, report)
		}
	}
}
