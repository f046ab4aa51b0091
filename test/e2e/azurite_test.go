package e2e

import (
	"strings"
	"testing"

	"chatelaine/test/servers"
)

func onAzurite(t *testing.T) cloud {
	t.Helper()
	s := servers.Azurite(t)
	_, address, _ := strings.Cut(s.Endpoint, "://")
	return cloud{
		url: "azure+http://" + address + "?checksum=none",
		env: []string{
			"CHATELAINE_BACKEND_ACCESS_KEY_ID=" + s.Account,
			"CHATELAINE_BACKEND_SECRET_ACCESS_KEY=" + s.Key,
		},
		dir: s.Dir,
	}
}

// Multipart uploads, copies on the command line and listings in small pages are part of
// what the client does with the folder.
func TestTheCommandLineWorksOnAzureBlobStorage(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Azurite")
	}
	w := newWorld(t, onAzurite(t))
	session{w, newDebianAWS(t, w), newFolder(t, 20<<20+3)}.run()
	w.assertDiscreet()
}
