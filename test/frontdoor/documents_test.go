package frontdoor

import (
	"crypto/md5" // what S3 wants of documents
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

const mebibyte = 1 << 20

// document is a request with a body of XML, with the checksum that S3 wants of some.
func document(method, path, query, body string) shot {
	sum := md5.Sum([]byte(body))
	return shot{method: method, path: path, query: query, body: body, loose: []string{"content-md5: " + base64.StdEncoding.EncodeToString(sum[:])}}
}

// bombs are documents that are small and make much of it, or never end.
func bombs(root string) map[string]string {
	var laughs strings.Builder
	laughs.WriteString(`<!DOCTYPE lolz [<!ENTITY l0 "lol">`)
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&laughs, `<!ENTITY l%d "%s">`, i, strings.Repeat(fmt.Sprintf("&l%d;", i-1), 10))
	}
	laughs.WriteString("]><" + root + ">&l9;</" + root + ">")
	inside := func(text string) string { return "<" + root + ">" + text + "</" + root + ">" }
	const almost = 2*mebibyte - 100
	return map[string]string{
		"a billion laughs":          laughs.String(),
		"an entity of the server's": `<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>` + inside("&f;"),
		"an entity without a type":  inside("&f;"),
		"nested to the end":         "<" + root + ">" + strings.Repeat("<a>", almost/3),
		"nested and closed":         inside(strings.Repeat("<a>", almost/8) + strings.Repeat("</a>", almost/8)),
		"of empty elements":         inside(strings.Repeat("<a/>", almost/4)),
		"of empty parts":            inside(strings.Repeat("<Part/>", almost/7)),
		"of empty objects":          inside(strings.Repeat("<Object/>", almost/9)),
		"of empty rules":            inside(strings.Repeat("<Rule/>", almost/7)),
		"of attributes":             "<" + root + strings.Repeat(` a=""`, almost/5) + "></" + root + ">",
		"of one name":               "<" + strings.Repeat("a", almost) + "/>",
		"of comments":               inside(strings.Repeat("<!---->", almost/7)),
		"longer than documents are": inside(strings.Repeat(" ", 3*mebibyte)),
		"a second document":         inside("") + inside(""),
		"in UTF-7":                  `<?xml version="1.0" encoding="UTF-7"?>` + inside(""),
		"not XML":                   strings.Repeat("\x00", 1000),
	}
}

// TestDocumentsThatExplodeAreRefused counts what each of them allocates, all in all:
// no more than is ever held at once.
func TestDocumentsThatExplodeAreRefused(t *testing.T) {
	w := newWorld(t)
	path := "/" + bucket
	for _, op := range []struct{ method, path, query, root string }{
		{"POST", path + "/k", "uploadId=x", "CompleteMultipartUpload"},
		{"POST", path, "delete=", "Delete"},
		{"PUT", path, "cors=", "CORSConfiguration"},
		{"PUT", path, "tagging=", "Tagging"},
		{"PUT", path + "/kept", "acl=", "AccessControlPolicy"},
		{"PUT", path, "lifecycle=", "LifecycleConfiguration"},
		{"PUT", "/newone", "", "CreateBucketConfiguration"},
	} {
		for name, text := range bombs(op.root) {
			t.Run(op.root+" "+name, func(t *testing.T) {
				w := w.at(t)
				var before, after runtime.MemStats
				request := document(op.method, op.path, op.query, text).text()
				runtime.ReadMemStats(&before)
				got := w.exchange(request)
				runtime.ReadMemStats(&after)
				if len(got) != 1 || got[0].status < 400 || got[0].status > 501 || got[0].status == 500 {
					t.Errorf("got %.500s, want it refused", fmt.Sprint(got))
				}
				if all := (after.TotalAlloc - before.TotalAlloc) / mebibyte; all > bombBound {
					t.Errorf("%d KiB of document allocate %d MiB, want at most %d", len(text)>>10, all, bombBound)
				}
			})
		}
	}
	w.unchanged()
}

// bombBound is what a document of 2 MiB may allocate before it is refused, in MiB.
const bombBound = 64

// TestListsInDocumentsEnd: a million parts, more keys than one request may delete.
func TestListsInDocumentsEnd(t *testing.T) {
	w := newWorld(t)
	upload := w.wants(shot{method: "POST", path: "/" + bucket + "/k", query: "uploads="}, 200, "")
	_, id, _ := strings.Cut(upload.body, "<UploadId>")
	id, _, _ = strings.Cut(id, "</UploadId>")
	if id == "" {
		t.Fatalf("no upload: %s", upload.body)
	}
	parts := func(n int) string {
		return "<CompleteMultipartUpload>" + strings.Repeat(`<Part><PartNumber>1</PartNumber><ETag>"0"</ETag></Part>`, n) + "</CompleteMultipartUpload>"
	}
	keys := func(n int) string {
		return "<Delete>" + strings.Repeat("<Object><Key>kept</Key></Object>", n) + "</Delete>"
	}
	for _, tt := range []struct {
		name string
		shot shot
		code string
	}{
		{"a million parts", document("POST", "/"+bucket+"/k", "uploadId="+id, parts(1_000_000)), "MaxMessageLengthExceeded"},
		{"10001 parts", document("POST", "/"+bucket+"/k", "uploadId="+id, parts(10_001)), "MalformedXML"},
		{"10000 parts that are all one", document("POST", "/"+bucket+"/k", "uploadId="+id, parts(10_000)), "InvalidPart"},
		{"1001 keys", document("POST", "/"+bucket, "delete=", keys(1001)), "MalformedXML"},
		{"a million keys", document("POST", "/"+bucket, "delete=", keys(1_000_000)), "MaxMessageLengthExceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := w.at(t)
			got := w.exchange(tt.shot.text())
			if len(got) != 1 || got[0].status != 400 || !strings.Contains(got[0].body, tt.code) {
				t.Errorf("got %.500s, want %s", fmt.Sprint(got), tt.code)
			}
		})
	}
	w.wants(shot{method: "DELETE", path: "/" + bucket + "/k", query: "uploadId=" + id}, 204, "")
	w.unchanged()
}

// TestHugeHeadersAreRefused: by S3's limit, and beyond it by that of the server, which
// holds before anything is known of the request.
func TestHugeHeadersAreRefused(t *testing.T) {
	w := newWorld(t)
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("x-%d: 1", i)
	}
	for name, tt := range map[string]struct {
		loose  []string
		path   string
		status int
	}{
		"9 KiB":                     {loose: []string{"x-long: " + strings.Repeat("x", 9<<10)}, status: 400},
		"5000 of them":              {loose: many, status: 400},
		"100 KiB":                   {loose: []string{"x-long: " + strings.Repeat("x", 100<<10)}, status: 431},
		"16 MiB":                    {loose: []string{"x-long: " + strings.Repeat("x", 16<<20)}, status: 431},
		"a name of 100 KiB":         {loose: []string{strings.Repeat("x", 100<<10) + ": 1"}, status: 431},
		"a request line of 100 KiB": {path: "/" + strings.Repeat("k", 100<<10), status: 431},
		"a key of 1025 bytes":       {path: "/" + strings.Repeat("k", 1025), status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.at(t)
			s := shot{method: "GET", path: "/" + bucket + "/kept" + tt.path, loose: tt.loose}
			if got := w.send(s); got.status != tt.status && (tt.status != 431 || got.status != 0) {
				t.Errorf("got %d %.300s, want %d", got.status, got.body, tt.status)
			}
		})
	}
	w.unchanged()
}
