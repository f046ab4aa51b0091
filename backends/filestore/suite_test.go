package filestore

import (
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
)

func TestFilestorePassesTheSuite(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backends.Store { return open(t, t.TempDir()) })
}

// open opens a store that the caller closes.
func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
