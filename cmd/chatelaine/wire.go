package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/azurestore"
	"chatelaine/backends/filestore"
	"chatelaine/backends/gcsstore"
	"chatelaine/backends/s3store"
	gatewayconfig "chatelaine/gateway/config"
	"chatelaine/kms"
	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/softkey"
	"chatelaine/kms/transit"
)

// This file is the only list of drivers: of stores for the gateway and of providers
// for the KMS.

// openStores opens the backends of a configuration by name. The caller closes them.
func openStores(ctx context.Context, configured map[string]gatewayconfig.Backend, logger *zap.Logger) (map[string]backends.Store, error) {
	stores := make(map[string]backends.Store, len(configured))
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		store, err := openStore(ctx, configured[name], logger.Named("backend").With(zap.String("backend", name)))
		if err != nil {
			problems = append(problems, fmt.Errorf("opening backend %q: %w", name, err))
			continue
		}
		stores[name] = store
	}
	if err := errors.Join(problems...); err != nil {
		return nil, errors.Join(err, closeStores(stores))
	}
	return stores, nil
}

func closeStores(stores map[string]backends.Store) error {
	var problems []error
	for _, store := range stores {
		problems = append(problems, store.Close())
	}
	return errors.Join(problems...)
}

// openStore chooses the driver by the URL's scheme.
func openStore(ctx context.Context, b gatewayconfig.Backend, logger *zap.Logger) (backends.Store, error) {
	scheme, _, _ := strings.Cut(b.URL, ":")
	if b.Dialect != "" && scheme != "s3" && scheme != "s3+http" {
		return nil, usageError{fmt.Errorf("dialect %q is given for scheme %q: only S3 has dialects", b.Dialect, scheme)}
	}
	switch scheme {
	case "file":
		return openFileStore(b.URL, logger)
	case "s3", "s3+http":
		return openS3Store(b, logger)
	case "azure", "azure+http":
		return openAzureStore(b)
	case "gcs", "gcs+http":
		return openGCSStore(ctx, b)
	}
	return nil, usageError{fmt.Errorf("scheme %q: want file:///folder, s3://host:port, s3+http://host:port, azure://account.blob.core.windows.net or gcs://project", scheme)}
}

func openFileStore(raw string, logger *zap.Logger) (backends.Store, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host != "" || u.RawQuery != "" || !filepath.IsAbs(u.Path) {
		return nil, usageError{fmt.Errorf("URL %q: want file:///folder, with three slashes and a whole path", raw)}
	}
	return filestore.New(filestore.Config{Root: u.Path, Logger: logger})
}

func openS3Store(b gatewayconfig.Backend, logger *zap.Logger) (backends.Store, error) {
	c, err := s3Config(b, logger)
	if err != nil {
		return nil, err
	}
	return s3store.Open(c)
}

func s3Config(b gatewayconfig.Backend, logger *zap.Logger) (s3store.Config, error) {
	c, err := s3store.ParseURL(b.URL)
	if err != nil {
		return s3store.Config{}, usageError{err}
	}
	if b.Dialect != "" {
		if _, _, err := s3store.DialectOf(b.Dialect, ""); err != nil {
			return s3store.Config{}, usageError{err}
		}
		c.Dialect = b.Dialect
	}
	c.Logger = logger
	if b.AccessKeyID().Given() {
		id, secret, err := accountOf(b)
		if err != nil {
			return s3store.Config{}, err
		}
		c.AccessKeyID, c.SecretAccessKey = id, s3store.NewSecret(secret)
	}
	return c, nil
}

func openAzureStore(b gatewayconfig.Backend) (backends.Store, error) {
	c, err := azurestore.ParseURL(b.URL)
	if err != nil {
		return nil, usageError{err}
	}
	if b.AccessKeyID().Given() {
		id, secret, err := accountOf(b)
		if err != nil {
			return nil, err
		}
		c.Account, c.Secret = id, azurestore.NewSecret(secret)
	}
	store, err := azurestore.New(c)
	if err != nil {
		return nil, usageError{err}
	}
	return store, nil
}

func openGCSStore(ctx context.Context, b gatewayconfig.Backend) (backends.Store, error) {
	c, err := gcsstore.ParseURL(b.URL)
	if err != nil {
		return nil, usageError{err}
	}
	if b.AccessKeyID().Given() {
		id, secret, err := accountOf(b)
		if err != nil {
			return nil, err
		}
		c.Account, c.Secret = id, gcsstore.NewSecret(secret)
	}
	store, err := gcsstore.New(ctx, c)
	if err != nil {
		return nil, usageError{err}
	}
	return store, nil
}

// accountOf reads the account that the configuration names.
func accountOf(b gatewayconfig.Backend) (id, secret string, err error) {
	id, err = b.AccessKeyID().Read()
	if err != nil {
		return "", "", usageError{err}
	}
	secret, err = b.SecretAccessKey().Read()
	if err != nil {
		return "", "", usageError{err}
	}
	return id, secret, nil
}

// openProvider opens what holds KEKs, under the name that the registry keeps with them.
// The caller closes it.
func openProvider(ctx context.Context, name string, c kmsconfig.Provider, watch *hsmWatch, logger *zap.Logger) (kms.Provider, error) {
	if c.SoftKey != nil {
		return softkey.New(softkey.Config{Name: softkey.Name, Dir: c.SoftKey.Dir, Logger: logger})
	}
	if c.Transit != nil {
		return openTransit(ctx, *c.Transit, logger)
	}
	return openPKCS11(ctx, name, *c.PKCS11, watch, logger)
}

// openProviders opens all that hold KEKs, by name, and says which makes new ones. The
// caller closes them with watch.
func openProviders(ctx context.Context, c kmsconfig.Config, watch *hsmWatch, logger *zap.Logger) (string, map[string]kms.Provider, error) {
	name := c.Provider.KnownAs()
	provider, err := openProvider(ctx, name, c.Provider, watch, logger)
	if err != nil {
		return "", nil, watch.close(nil, err)
	}
	all := map[string]kms.Provider{name: provider}
	for _, other := range slices.Sorted(maps.Keys(c.Providers)) {
		if all[other], err = openProvider(ctx, other, c.Providers[other], watch, logger); err != nil {
			delete(all, other)
			return "", nil, watch.close(all, fmt.Errorf("opening provider %q: %w", other, err))
		}
	}
	return name, all, nil
}

func closeProviders(all map[string]kms.Provider) error {
	var problems []error
	for _, provider := range all {
		problems = append(problems, provider.Close())
	}
	return errors.Join(problems...)
}

func openTransit(ctx context.Context, c kmsconfig.Transit, logger *zap.Logger) (kms.Provider, error) {
	login := transit.Auth{}
	if c.Token != nil {
		login.Token = &transit.Token{Read: c.Token.Secret().Read}
	}
	if c.AppRole != nil {
		login.AppRole = &transit.AppRole{Mount: c.AppRole.Mount, RoleID: c.AppRole.RoleID, SecretID: c.AppRole.SecretID().Read}
	}
	if c.Kubernetes != nil {
		login.Kubernetes = &transit.Kubernetes{Mount: c.Kubernetes.Mount, Role: c.Kubernetes.Role, TokenFile: c.Kubernetes.TokenFile}
	}
	if c.Certificate != nil {
		own := transit.Certificate(*c.Certificate)
		login.Certificate = &own
	}
	provider, err := transit.New(ctx, transit.Config{
		Address: c.Address, Namespace: c.Namespace, Mount: c.Mount, Prefix: c.Prefix, CAFile: c.CAFile,
		Auth: login, Deadline: c.Deadline, Logger: logger,
	})
	if errors.Is(err, kms.ErrInvalid) {
		return nil, usageError{err}
	}
	return provider, err
}
