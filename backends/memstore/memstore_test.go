package memstore_test

import (
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
	"chatelaine/backends/memstore"
)

func TestMemstorePassesTheSuite(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backends.Store { return memstore.New() })
}
