package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Proxy is a toxiproxy in front of one address, that may disturb what passes it.
type Proxy struct {
	Address string // host:port, to be used in place of the one behind
	api     string // of the program itself
}

// Toxic is a disturbance, by toxiproxy's names.
type Toxic struct {
	Type string `json:"type"` // latency, timeout, limit_data, reset_peer, …
	// Stream is upstream (requests) or downstream (answers).
	Stream     string           `json:"stream"`
	Attributes map[string]int64 `json:"attributes"`
}

// proxyName is that of the one proxy of a program.
const proxyName = "proxy"

// Toxiproxy starts one in front of upstream (host:port) that lives as long as the test.
// The binary is the one that CHATELAINE_TOXIPROXY names, or is built once. Where neither
// can be had the test is skipped, or fails if CI is set.
func Toxiproxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	path, err := binary(t.Context(), "toxiproxy", "CHATELAINE_TOXIPROXY")
	if err != nil {
		unavailable(t, err)
	}
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start("toxiproxy", filepath.Join(t.TempDir(), "toxiproxy.log"), exec.Command(path, "-host", host, "-port", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	if err := p.await(t.Context(), listening(address)); err != nil {
		t.Fatal(err)
	}
	x := &Proxy{api: "http://" + address + "/proxies"}
	var made struct{ Listen string }
	x.ask(t, http.MethodPost, "", map[string]any{"name": proxyName, "listen": "127.0.0.1:0", "upstream": upstream, "enabled": true}, &made)
	x.Address = made.Listen
	return x
}

// Disturb adds a toxic to all connections, also to those that are open, until it is
// taken off by the function that is returned, or the test ends.
func (p *Proxy) Disturb(t testing.TB, toxic Toxic) (calm func()) {
	t.Helper()
	var made struct{ Name string }
	p.ask(t, http.MethodPost, "/"+proxyName+"/toxics", toxic, &made)
	return func() {
		t.Helper()
		p.ask(t, http.MethodDelete, "/"+proxyName+"/toxics/"+made.Name, nil, nil)
	}
}

// ask calls toxiproxy's own interface.
func (p *Proxy) ask(t testing.TB, method, path string, body, answer any) {
	t.Helper()
	if err := p.call(t.Context(), method, path, body, answer); err != nil {
		t.Fatalf("servers: asking toxiproxy: %v", err)
	}
}

func (p *Proxy) call(ctx context.Context, method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, p.api+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, out)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(out, answer)
}
