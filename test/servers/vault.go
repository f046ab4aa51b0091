package servers

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Vault is a running HashiCorp Vault that keeps everything in memory, with a transit
// engine at transit/ and a token that may do everything.
type Vault struct {
	Address string // http://127.0.0.1:port, or https with VaultOptions
	Token   string
	client  *http.Client
	process *process
}

// VaultOptions are what a test may want beside.
type VaultOptions struct {
	// CertFile and KeyFile make it speak TLS and ask for client certificates.
	CertFile, KeyFile string
	// Client reaches it over TLS. Required with CertFile.
	Client *http.Client
}

// StartVault starts a Vault that lives as long as the test. The binary is the one that
// CHATELAINE_VAULT names, or is built once (test/tools). Where neither can be had the
// test is skipped, or fails if CI is set.
func StartVault(t testing.TB, o VaultOptions) *Vault {
	t.Helper()
	path, err := binary(t.Context(), "vault", "CHATELAINE_VAULT")
	if err != nil {
		unavailable(t, err)
	}
	var v *Vault
	for range 3 { // somebody else may take the port in between
		if v, err = startVault(t.Context(), path, t.TempDir(), o); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.process.stop)
	v.Do(t, http.MethodPost, "sys/mounts/transit", map[string]any{"type": "transit"})
	return v
}

func startVault(ctx context.Context, path, dir string, o VaultOptions) (*Vault, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	v := &Vault{Address: "http://" + address, Token: "root-" + rand.Text(), client: &http.Client{Timeout: 20 * time.Second}}
	args := []string{"-listen", address}
	if o.CertFile != "" {
		v.Address, v.client = "https://"+address, o.Client
		args = append(args, "-cert", o.CertFile, "-key", o.KeyFile)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "VAULT_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "VAULT_DEV_ROOT_TOKEN_ID="+v.Token)
	v.process, err = start("vault", filepath.Join(dir, "vault.log"), cmd)
	if err != nil {
		return nil, err
	}
	if err := v.process.await(ctx, func(ctx context.Context) error { return v.Call(ctx, http.MethodGet, "sys/health", nil, nil) }); err != nil {
		v.process.stop()
		return nil, err
	}
	return v, nil
}

// Do makes a call with the token that may do everything, and returns the answer's data
// or auth. The test fails where Vault refuses.
func (v *Vault) Do(t testing.TB, method, path string, body map[string]any) map[string]any {
	t.Helper()
	var answer struct{ Data, Auth map[string]any }
	if err := v.Call(t.Context(), method, path, body, &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Auth != nil {
		return answer.Auth
	}
	return answer.Data
}

// Call makes a call with the token that may do everything. The answer's JSON goes
// where into points, unless that is nil.
func (v *Vault) Call(ctx context.Context, method, path string, body map[string]any, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, v.Address+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", v.Token)
	resp, err := v.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("servers: %s %s: Vault answered %s: %s", method, path, resp.Status, answer)
	}
	if into == nil || len(answer) == 0 {
		return nil
	}
	return json.Unmarshal(answer, into)
}
