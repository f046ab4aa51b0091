package frontdoor

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/filestore"
)

// onFiles keeps the objects of a world in files, whose paths keys might climb out of.
func onFiles(t *testing.T, root string) func(*options) {
	store, err := filestore.New(filestore.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *options) { o.gateway.Stores = map[string]backends.Store{"main": store} }
}

// TestKeysAreTakenByTheByte stores objects under keys that servers like to tidy. Each
// is an object of its own, or refused; none is another, and none is a file outside.
func TestKeysAreTakenByTheByte(t *testing.T) {
	around := t.TempDir()
	w := newWorld(t, onFiles(t, filepath.Join(around, "cloud")))
	w.wants(shot{method: "DELETE", path: "/" + bucket + "/kept"}, 204, "")
	w.wants(shot{method: "PUT", path: "/cellar"}, 200, "")
	paths := []string{
		"k", "k/", "/k", "//k", "./k", "../k", "a/../k", "a/./k", "a//k", "a/k", "..%2F..%2Fk", "%2Fk%2F", "a%2Fb/..", "..", ".", "...",
		"%252e%252e%252fk", "%252Fk", "%2E%2E/%2E%2E/%2E%2E/etc/passwd", "../../../cellar/k", "%5C..%5Ck", "C%3A%5Ck", "a%3Fb", "a%23b", "a;b",
		"caf%C3%A9", "cafe%CC%81", "%EF%BC%8E%EF%BC%8E/k", "%E2%80%AEk", "%EF%BB%BFk", "K", "%6B+", "k%20", "%20k", "k%0A", "k%0D%0Ax-evil:%201", "k%09", "k%7F",
		"k%00", "k%00.txt", "%C0%AE%C0%AE/k", "%FF", "%ED%A0%80", strings.Repeat("d/", 500), strings.Repeat("%C3%A9", 512),
	}
	stored := map[string]string{} // bodies by paths
	for _, path := range paths {
		got := w.send(put(path, "body of "+path))
		switch {
		case got.status == 200:
			stored[path] = "body of " + path
		case got.status < 400 || got.status > 499:
			t.Errorf("%q: got %d %s, want it stored or refused", path, got.status, got.body)
		}
	}
	for path, body := range stored {
		if got := w.send(shot{method: "GET", path: "/" + bucket + "/" + path}); got.status != 200 || got.body != body {
			t.Errorf("%q: got %d %.100q, want %q", path, got.status, got.body, body)
		}
	}
	if len(stored) < len(paths)-8 {
		t.Errorf("only %d of %d keys were stored", len(stored), len(paths))
	}
	list := w.wants(shot{method: "GET", path: "/cellar", query: "list-type=2"}, 200, "")
	if strings.Contains(list.body, "<Key>") {
		t.Errorf("another bucket has got an object: %s", list.body)
	}
	if files, err := os.ReadDir(around); err != nil || len(files) != 1 {
		t.Errorf("beside the folder of the objects: got %v and %v, want nothing", files, err)
	}
}

// TestReservedNamesAreRefusedHoweverTheyAreWritten: what decodes to a reserved name
// is one; what only a file system would take for one is a key like others.
func TestReservedNamesAreRefusedHoweverTheyAreWritten(t *testing.T) {
	w := newWorld(t, onFiles(t, filepath.Join(t.TempDir(), "cloud")))
	for _, path := range []string{".chatelaine/keys/x", "%2echatelaine/x", ".chatelaine%2Fx", "%2E%63hatelaine%2fkeys%2Fx", ".chatelaine/"} {
		for _, method := range []string{"PUT", "GET", "DELETE"} {
			w.wants(shot{method: method, path: "/" + bucket + "/" + path}, 403, "AccessDenied")
		}
		copying := put("copied", "")
		copying.signed = []string{"x-amz-copy-source: /" + bucket + "/" + path}
		w.wants(copying, 403, "AccessDenied")
	}
	for _, path := range []string{"a/../.chatelaine/keys/x", "./.chatelaine/x", "/.chatelaine/x", ".Chatelaine/x", "%252echatelaine/x"} {
		w.wants(put(path, path), 200, "")
		if got := w.wants(shot{method: "GET", path: "/" + bucket + "/" + path}, 200, ""); got.body != path {
			t.Errorf("%q: got %q", path, got.body)
		}
		w.wants(shot{method: "DELETE", path: "/" + bucket + "/" + path}, 204, "")
	}
	w.unchanged()
}

// TestBucketsAreNotClimbedOutOf: a bucket's name is what stands before the first slash
// that is not escaped, and has no other form.
func TestBucketsAreNotClimbedOutOf(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{
		"/" + bucket + "%2Fkept", "/" + bucket + "%00/kept", "/" + strings.ToUpper(bucket) + "/kept", "/" + bucket + "%20/kept",
		"/./" + bucket + "/kept", "/../" + bucket + "/kept", "//" + bucket + "/kept", "/%2e%2e/kept", "/there-" + bucket + "/kept",
	} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			if got := w.send(shot{method: method, path: path}); got.status < 400 || got.status > 499 {
				t.Errorf("%s %q: got %d %.200s, want it refused", method, path, got.status, got.body)
			}
		}
	}
	w.unchanged()
}

// TestListsAndHeadersAreNotInjectedInto stores what would be markup or header lines.
func TestListsAndHeadersAreNotInjectedInto(t *testing.T) {
	w := newWorld(t)
	const evil = "a<Key>b]]>&\"'\r\nx-evil: 1"
	w.wants(put(url.PathEscape(evil), "x"), 200, "")
	list := w.wants(shot{method: "GET", path: "/" + bucket, query: "list-type=2"}, 200, "")
	if n := strings.Count(list.body, "<Key>"); n != 2 {
		t.Errorf("got %d keys, want 2: %s", n, list.body)
	}
	read := shot{method: "GET", path: "/" + bucket + "/" + url.PathEscape(evil), query: "response-content-type=" + url.PathEscape("a\r\nx-evil: 1")}
	for _, raw := range []string{read.text(), shot{method: "GET", path: "/" + bucket + "/" + url.PathEscape("none"+evil)}.text()} {
		for _, line := range w.heads(raw) {
			if strings.HasPrefix(line, "x-evil") {
				t.Errorf("a header was injected: %q", line)
			}
		}
	}
}
