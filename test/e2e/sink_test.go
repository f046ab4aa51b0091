package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chatelaine/test/e2e/harness"
)

// newSink is a cloud that takes everything and keeps nothing: what is measured with
// it is the gateway, and no disk fills.
func newSink(t *testing.T) cloud {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(sink))
	server.Config.ReadHeaderTimeout = 0
	server.Start()
	t.Cleanup(server.Close)
	return cloud{
		url: "s3+http://" + strings.TrimPrefix(server.URL, "http://"),
		env: []string{"CHATELAINE_BACKEND_ACCESS_KEY_ID=anybody", "CHATELAINE_BACKEND_SECRET_ACCESS_KEY=anything"},
		dir: t.TempDir(),
	}
}

func sink(w http.ResponseWriter, r *http.Request) {
	_, _ = harness.Drain(r.Body)
	switch r.Method {
	case http.MethodPut:
		w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
	case http.MethodGet:
		w.Header().Set("Content-Type", "application/xml")
		_, _ = io.WriteString(w, "<ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>")
	case http.MethodHead:
	default:
		http.Error(w, fmt.Sprintf("a sink does not %s", r.Method), http.StatusNotImplemented)
	}
}
