package azurestore_test

import (
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/azurestore"
	"chatelaine/backends/backendtest"
	"chatelaine/test/servers"
)

func configOf(s *servers.Azure) azurestore.Config {
	return azurestore.Config{Endpoint: s.Endpoint, Account: s.Account, Secret: azurestore.NewSecret(s.Key), NoChecksum: true}
}

func open(t testing.TB, cfg azurestore.Config) *azurestore.Store {
	t.Helper()
	s, err := azurestore.New(cfg)
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

func TestContractOnAzurite(t *testing.T) {
	s := servers.Azurite(t)
	backendtest.Options{Refuses: azurestore.Refuses, ShortTags: true}.Run(t, func(t *testing.T) backends.Store { return open(t, configOf(s)) })
}
