// Vault in memory, for tests: the core, its HTTP API, the transit engine, and the ways
// to log in that kms/transit knows. It starts unsealed, with the root token of the
// environment variable VAULT_DEV_ROOT_TOKEN_ID, and forgets all when it ends.
//
// The whole vault binary has a hundred plugins more and takes four times as long to
// build.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8200", "`address`")
	certFile := flag.String("cert", "", "the server's certificate, in PEM; without it plain HTTP is spoken")
	keyFile := flag.String("key", "", "its key")
	flag.Parse()
	if err := run(*listen, *certFile, *keyFile); err != nil {
		log.Fatal(err)
	}
}

func run(listen, certFile, keyFile string) error {
	core, err := newCore(os.Getenv("VAULT_DEV_ROOT_TOKEN_ID"))
	if err != nil {
		return err
	}
	s := &http.Server{
		Addr: listen,
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core: core, ListenerConfig: &configutil.Listener{Address: listen},
		}),
		ReadHeaderTimeout: time.Minute,
		TLSConfig:         &tls.Config{ClientAuth: tls.RequestClientCert},
	}
	if certFile == "" {
		return s.ListenAndServe()
	}
	return s.ListenAndServeTLS(certFile, keyFile)
}

// newCore is a core that is initialised and unsealed.
func newCore(token string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Info, Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical: storage,
		Logger:   logger,
		LogicalBackends: map[string]logical.Factory{
			"transit": transit.Factory,
		},
		CredentialBackends: map[string]logical.Factory{
			"approle": approle.Factory, "cert": cert.Factory, "kubernetes": kubernetes.Factory,
		},
		BuiltinRegistry: none{},
		DisableMlock:    true,
	})
	if err != nil {
		return nil, err
	}
	ctx := namespace.RootContext(context.Background())
	shares := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: shares, LegacyShamirSeal: true})
	if err != nil {
		return nil, fmt.Errorf("initialising: %w", err)
	}
	if open, err := core.Unseal(made.SecretShares[0]); err != nil || !open {
		return nil, fmt.Errorf("unsealing: %t, %w", open, err)
	}
	return core, setRoot(ctx, core, made.RootToken, token)
}

// setRoot makes a root token of that text.
func setRoot(ctx context.Context, core *vault.Core, root, token string) error {
	if token == "" {
		return errors.New("VAULT_DEV_ROOT_TOKEN_ID is empty")
	}
	answer, err := core.HandleRequest(ctx, &logical.Request{
		ID: "root", Operation: logical.UpdateOperation, ClientToken: root, Path: "auth/token/create",
		Data: map[string]any{"id": token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true},
	})
	if err == nil && answer.IsError() {
		err = answer.Error()
	}
	return err
}

// none is a catalog of plugins without any: all there are were given to the core.
type none struct{}

func (none) Contains(string, consts.PluginType) bool { return false }

func (none) Get(string, consts.PluginType) (func() (any, error), bool) { return nil, false }

func (none) Keys(consts.PluginType) []string { return nil }

func (none) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Unknown, false
}

func (none) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
