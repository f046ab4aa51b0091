package frontdoor

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// spoiled is a request that somebody has recorded, and changed without the secret.
type spoiled struct {
	name   string
	status int
	code   string
	shot   shot
	edit   func(text string) string
}

func swap(old, with string) func(string) string {
	return func(text string) string { return strings.Replace(text, old, with, 1) }
}

// add puts lines before all other headers.
func add(lines ...string) func(string) string {
	return swap("\r\n", "\r\n"+strings.Join(lines, "\r\n")+"\r\n")
}

func spoiledHeaders() []spoiled {
	tagged := put("kept", "evil")
	tagged.signed = []string{"x-amz-tagging: a=1,b=2"}
	meta := put("kept", "evil")
	meta.signed = []string{"x-amz-meta-a: signed"}
	early, late := put("kept", "evil"), put("kept", "evil")
	early.age, late.age = 16*time.Minute, -16*time.Minute
	good := put("kept", "evil")
	hashed := put("kept", "evil")
	hashed.payload = digest("good")
	now := time.Now().UTC()
	return []spoiled{
		{"replayed after its time", 403, "RequestTimeTooSkewed", early, nil},
		{"from the future", 403, "RequestTimeTooSkewed", late, nil},
		{"replayed with a new date", 403, "SignatureDoesNotMatch", early, swap(now.Add(-16*time.Minute).Format("T150405Z"), now.Format("T150405Z"))},
		{"replayed with a new Date beside the old one", 403, "RequestTimeTooSkewed", early, add("date: " + now.Format(time.RFC1123))},
		{"a second date", 400, "InvalidRequest", early, add("x-amz-date: " + now.Format(amzTime))},
		{"a second authorization", 400, "InvalidRequest", good, add("authorization: AWS4-HMAC-SHA256 Credential=a,SignedHeaders=b,Signature=c")},
		{"a second payload hash", 400, "InvalidRequest", hashed, add("x-amz-content-sha256: " + unsigned)},
		{"the payload hash taken away", 403, "SignatureDoesNotMatch", hashed, swap("x-amz-content-sha256: "+digest("good"), "x-amz-content-sha256: "+unsigned)},
		{"another body", 400, "XAmzContentSHA256Mismatch", hashed, nil},
		{"a signed header twice", 403, "SignatureDoesNotMatch", meta, add("x-amz-meta-a: evil")},
		{"a signed header split in two that join to it", 400, "InvalidRequest", tagged, swap("x-amz-tagging: a=1,b=2", "x-amz-tagging: a=1\r\nx-amz-tagging: b=2")},
		{"a signed header under a like name", 403, "SignatureDoesNotMatch", meta, swap("x-amz-meta-a:", "x_amz_meta_a:")},
		{"an unsigned ACL", 403, "AccessDenied", good, add("x-amz-acl: public-read")},
		{"an unsigned copy source", 403, "AccessDenied", good, add("x-amz-copy-source: /" + bucket + "/kept")},
		{"an unsigned reason", 403, "AccessDenied", good, add("x-chatelaine-reason: because")},
		{"unsigned metadata", 403, "AccessDenied", good, add("x-amz-meta-evil: 1")},
		{"a header that is no longer among the signed", 403, "AccessDenied", meta, swap("x-amz-date;x-amz-meta-a", "x-amz-date")},
		{"a signature in the query too", 400, "InvalidArgument", good, swap("/kept HTTP", "/kept?X-Amz-Signature="+strings.Repeat("0", 64)+" HTTP")},
		{"a presigned query too", 400, "InvalidArgument", good, swap("/kept HTTP", "/kept?X-Amz-Algorithm=AWS4-HMAC-SHA256 HTTP")},
		{"a presigned query in small letters", 403, "SignatureDoesNotMatch", good, swap("/kept HTTP", "/kept?x-amz-signature=0 HTTP")},
		{"an unsigned parameter", 403, "SignatureDoesNotMatch", good, swap("/kept HTTP", "/kept?tagging HTTP")},
		{"a header in the query", 403, "SignatureDoesNotMatch", good, swap("/kept HTTP", "/kept?x-amz-acl=public-read HTTP")},
		{"another key", 403, "SignatureDoesNotMatch", good, swap("/kept HTTP", "/other HTTP")},
		{"another method", 403, "SignatureDoesNotMatch", good, swap("PUT ", "DELETE ")},
		{"another host", 403, "SignatureDoesNotMatch", good, swap("host: gateway.test", "host: other.test")},
		{"another host in the request line", 403, "SignatureDoesNotMatch", good, swap("PUT /", "PUT http://other.test/")},
		{"a signature in capitals", 403, "SignatureDoesNotMatch", good, func(text string) string {
			head, rest, _ := strings.Cut(text, "Signature=")
			return head + "Signature=" + strings.ToUpper(rest[:64]) + rest[64:]
		}},
		{"authorization in HTTP's trailer", 403, "AccessDenied", good, func(text string) string {
			head, auth, _ := strings.Cut(text, "authorization:")
			auth, rest, _ := strings.Cut(auth, "\r\n")
			rest = strings.Replace(rest, "content-length: 4", "transfer-encoding: chunked\r\ntrailer: authorization", 1)
			rest = strings.Replace(rest, "\r\n\r\nevil", "\r\n\r\n4\r\nevil\r\n0\r\nauthorization:"+auth+"\r\n\r\n", 1)
			return head + rest
		}},
	}
}

// TestRecordedRequestsAreOfNoUseToOthers plays somebody who sees or carries signed
// requests and has no secret.
func TestRecordedRequestsAreOfNoUseToOthers(t *testing.T) {
	w := newWorld(t)
	for _, tt := range spoiledHeaders() {
		t.Run(tt.name, func(t *testing.T) { w.at(t).refused(tt) })
	}
}

// at is the world for a subtest.
func (w *world) at(t *testing.T) *world {
	c := *w
	c.t = t
	return &c
}

func (w *world) refused(tt spoiled) {
	w.t.Helper()
	text := tt.shot.text()
	if tt.edit != nil {
		if edited := tt.edit(text); edited == text {
			w.t.Fatal("the attack has changed nothing")
		} else {
			text = edited
		}
	}
	got := w.exchange(text)
	if len(got) != 1 || got[0].status != tt.status || !strings.Contains(got[0].body, codeElement(tt.code)) {
		w.t.Errorf("got %v, want %d %s", got, tt.status, tt.code)
	}
	w.unchanged()
}

// TestNothingOverridesARequest sends headers that some servers take for the method,
// path or host of a request, and that are not signed.
func TestNothingOverridesARequest(t *testing.T) {
	w := newWorld(t)
	for _, line := range []string{
		"x-http-method-override: DELETE", "x-http-method: DELETE", "x-method-override: DELETE",
		"x-original-url: /" + bucket + "/other", "x-rewrite-url: /" + bucket + "/other",
		"x-forwarded-host: other.test", "x-forwarded-prefix: /other", "x-forwarded-proto: https", "x-host: other.test",
	} {
		got := w.wants(shot{method: "GET", path: "/" + bucket + "/kept", loose: []string{line}}, 200, "")
		if got.body != kept {
			t.Errorf("%s: got %.100q", line, got.body)
		}
	}
	w.unchanged()
}

// presigned is a GET or PUT that works without credentials.
func presigned(method, key string, age time.Duration, expires string) shot {
	at := time.Now().UTC().Add(-age)
	q := url.Values{
		"X-Amz-Algorithm": {"AWS4-HMAC-SHA256"}, "X-Amz-Credential": {keyID + "/" + scope(at)}, "X-Amz-Date": {at.Format(amzTime)},
		"X-Amz-Expires": {expires}, "X-Amz-SignedHeaders": {"host"},
	}
	s := shot{method: method, path: "/" + bucket + "/" + key}
	query := strings.ReplaceAll(q.Encode(), "+", "%20")
	request := strings.Join([]string{method, s.path, query, "host:gateway.test\n", "host", unsigned}, "\n")
	s.query = query + "&X-Amz-Signature=" + mac(at, "AWS4-HMAC-SHA256\n"+at.Format(amzTime)+"\n"+scope(at)+"\n"+digest(request))
	return s
}

// bare is the text of a request that has its signature in the query alone.
func (s shot) bare() string {
	return s.method + " " + s.path + "?" + s.query + " HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\ncontent-length: " +
		strconv.Itoa(len(s.body)) + "\r\n\r\n" + s.body
}

func TestPresignedRequestsEndAndCannotBeBent(t *testing.T) {
	w := newWorld(t)
	write := presigned("PUT", "kept", 0, "60")
	write.body = kept
	const week = 7 * 24 * 3600
	for _, tt := range []struct {
		name   string
		text   string
		status int
		code   string
	}{
		{"good", presigned("GET", "kept", 0, "60").bare(), 200, ""},
		{"good for a week", presigned("GET", "kept", 0, strconv.Itoa(week)).bare(), 200, ""},
		{"a good PUT", write.bare(), 200, ""},
		{"expired", presigned("GET", "kept", 61*time.Second, "60").bare(), 403, "AccessDenied"},
		{"expired after a week", presigned("GET", "kept", (week+1)*time.Second, strconv.Itoa(week)).bare(), 403, "AccessDenied"},
		{"for longer than a week", presigned("GET", "kept", 0, strconv.Itoa(week+1)).bare(), 400, "AuthorizationQueryParametersError"},
		{"for ever", presigned("GET", "kept", 0, "99999999999999999999").bare(), 400, "AuthorizationQueryParametersError"},
		{"for a negative time", presigned("GET", "kept", 0, "-1").bare(), 400, "AuthorizationQueryParametersError"},
		{"of tomorrow", presigned("GET", "kept", -24*time.Hour, "60").bare(), 403, "AccessDenied"},
		{"a life that was made longer", swap("X-Amz-Expires=60", "X-Amz-Expires=90")(presigned("GET", "kept", 61*time.Second, "60").bare()), 403, "SignatureDoesNotMatch"},
		{"two lives", swap("X-Amz-Expires=60", "X-Amz-Expires=90&X-Amz-Expires=60")(presigned("GET", "kept", 61*time.Second, "60").bare()), 400, "InvalidRequest"},
		{"a life in small letters", swap("?", "?x-amz-expires=90&")(presigned("GET", "kept", 61*time.Second, "60").bare()), 403, "AccessDenied"},
		{"another method", swap("GET", "DELETE")(presigned("GET", "kept", 0, "60").bare()), 403, "SignatureDoesNotMatch"},
		{"another key", swap("kept", "other")(presigned("GET", "kept", 0, "60").bare()), 403, "SignatureDoesNotMatch"},
		{"a parameter that was added", swap("?", "?versionId=null&")(presigned("GET", "kept", 0, "60").bare()), 403, "SignatureDoesNotMatch"},
		{"metadata that was added", add("x-amz-meta-evil: 1")(write.bare()), 403, "AccessDenied"},
		{"a body hash that was added", add("x-amz-content-sha256: " + digest(kept))(write.bare()), 403, "SignatureDoesNotMatch"},
		{"the host no longer signed", swap("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=date")(presigned("GET", "kept", 0, "60").bare()), 403, "AccessDenied"},
		{"an authorization too", add("authorization: AWS4-HMAC-SHA256 x")(presigned("GET", "kept", 0, "60").bare()), 400, "InvalidArgument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := w.at(t)
			got := w.exchange(tt.text)
			if len(got) != 1 || got[0].status != tt.status || !strings.Contains(got[0].body, codeElement(tt.code)) {
				t.Errorf("got %v, want %d %s", got, tt.status, tt.code)
			}
			w.unchanged()
		})
	}
}
