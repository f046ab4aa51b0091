package gcsstore_test

import (
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
	"chatelaine/backends/gcsstore"
	"chatelaine/test/servers"
)

func configOf(s *servers.GCS) gcsstore.Config {
	return gcsstore.Config{Project: s.Project, Location: "EU", Endpoint: s.Endpoint}
}

func open(t testing.TB, cfg gcsstore.Config) *gcsstore.Store {
	t.Helper()
	s, err := gcsstore.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestContractOnFakeGCSServer(t *testing.T) {
	t.Parallel()
	s := servers.FakeGCS(t)
	backendtest.Options{Refuses: gcsstore.Refuses}.Run(t, func(t *testing.T) backends.Store { return open(t, configOf(s)) })
}
