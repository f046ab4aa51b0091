package s3store_test

import (
	"strings"
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
	"chatelaine/backends/s3store"
	"chatelaine/test/servers"
)

// versitygw is one server for all tests; TestMain stops it.
var versitygw servers.Shared

// cephs is one cluster for all tests; TestMain stops it.
var cephs servers.Shared

// speaking is a server's configuration with the dialect of that name.
func speaking(s *servers.S3, dialect string) s3store.Config {
	cfg := configOf(s)
	cfg.Dialect = dialect
	return cfg
}

// offered is a store with the capabilities that its dialect leaves.
func offered(t testing.TB, cfg s3store.Config) backends.Store {
	t.Helper()
	s, err := s3store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// versitygwOptions are what versitygw over a folder does otherwise than S3. Keys that
// end with a slash are folders, which hold nothing.
func versitygwOptions() backendtest.Options {
	return backendtest.Options{
		Refuses:             func(key string) bool { return minioRefuses(key) || strings.HasSuffix(key, "/") },
		Merges:              true,
		NoConditionalDelete: true,
		UploadsInOnePage:    true,
		DeletesCollide:      true,
		CutsLinger:          true,
		PromisesMore:        true,
		TakesAnyToken:       true,
	}
}

func TestContractOnVersityGW(t *testing.T) {
	versitygwOptions().Run(t, func(t *testing.T) backends.Store {
		return offered(t, speaking(versitygw.VersityGW(t), "versitygw"))
	})
}

// cephOptions are what Ceph 16 does otherwise than S3.
func cephOptions() backendtest.Options {
	return backendtest.Options{
		NoIfMatch:             true,
		NoConditionalComplete: true,
		NoConditionalDelete:   true,
		NamesAllParts:         true,
		FailsOnUnknown:        true,
		UploadsInOnePage:      true,
	}
}

func TestContractOnCeph(t *testing.T) {
	cephOptions().Run(t, func(t *testing.T) backends.Store { return offered(t, speaking(cephs.Ceph(t), "ceph")) })
}
