package e2e

import (
	"strings"
	"testing"

	"chatelaine/test/servers"
)

func onFakeGCS(t *testing.T) cloud {
	t.Helper()
	s := servers.FakeGCS(t)
	_, address, _ := strings.Cut(s.Endpoint, "://")
	return cloud{url: "gcs+http://" + address + "/" + s.Project + "?location=EU", dir: s.Dir}
}

// As on Azurite. What is searched for secrets is all that the server was sent.
func TestTheCommandLineWorksOnGoogleCloudStorage(t *testing.T) {
	if testing.Short() {
		t.Skip("needs fake-gcs-server")
	}
	w := newWorld(t, onFakeGCS(t))
	session{w, newDebianAWS(t, w), newFolder(t, 20<<20+3)}.run()
	w.assertDiscreet()
}
