package s3api

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"chatelaine/gateway/access"
	"chatelaine/gateway/keys"
	"chatelaine/kms/policy"
)

// Every action that this package asks for must be one that policies can name, and be
// asked of what policies know it to be done to.
func TestPoliciesKnowEveryAction(t *testing.T) {
	kinds := map[string]policy.Kind{}
	for _, a := range policy.Actions() {
		kinds[a.Name] = a.On
	}
	on := map[level]policy.Kind{levelService: policy.OnService, levelBucket: policy.OnBucket, levelObject: policy.OnObject}
	for _, r := range routes() {
		for _, action := range []string{r.action, r.version} {
			if action != "" && kinds[action] != on[r.level] {
				t.Errorf("%s asks for %s on a %s, in policies it is on a %s", r.name, action, on[r.level], kinds[action])
			}
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"(s3:[A-Z][A-Za-z]+)"`).FindAllStringSubmatch(string(text), -1) {
			if kinds[m[1]] == 0 && !strings.HasSuffix(file, "_test.go") {
				t.Errorf("%s: policies do not know %s", file, m[1])
			}
		}
	}
}

// changing is a Source whose policies a test changes.
type changing struct {
	now  atomic.Pointer[keys.Policies]
	fail atomic.Bool
}

// Policies implements access.Source.
func (c *changing) Policies(context.Context) (*keys.Policies, error) {
	if c.fail.Load() {
		return nil, keys.ErrUnavailable
	}
	return c.now.Load(), nil
}

// put checks and installs policies.
func (c *changing) put(t *testing.T, text string) {
	t.Helper()
	d := policy.Document{Policies: []byte(text)}
	if err := policy.Validate(d); err != nil {
		t.Fatal(err)
	}
	c.now.Store(&keys.Policies{Document: d})
}

// newPoliced is a world in which real policies decide; it begins with the default.
func newPoliced(t *testing.T) (*world, *changing) {
	t.Helper()
	source := &changing{}
	source.put(t, string(policy.Default().Policies))
	w := newWorld(t, func(c *Config) { c.Authorizer = access.New(source, access.NewLog(io.Discard)) })
	return w, source
}

// asBob signs with bob's key.
func asBob(s sent) sent {
	s.key, s.secret = bobKey, bobSecret
	return s
}

func TestPoliciesDecideEachRequest(t *testing.T) {
	const readReports = `permit (principal == User::"bob", action in Action::"read", resource in Bucket::"bucket")
		when { resource is Object && resource.key like "reports/*" || context has prefix && context.prefix like "reports/*" };`
	const writeInbox = `permit (principal == User::"bob", action in Action::"write", resource in Bucket::"bucket")
		when { resource is Object && resource.key like "inbox/*" };`
	source := func(path string) []string { return []string{"X-Amz-Copy-Source: " + path} }
	tests := []struct {
		name, text string
		sent       sent
		status     int
	}{
		{"nothing by default", "", sent{method: "GET", path: "/bucket/reports/a"}, 403},
		{"a key with the prefix", readReports, sent{method: "GET", path: "/bucket/reports/a"}, 200},
		{"another key", readReports, sent{method: "GET", path: "/bucket/private"}, 403},
		{"its version", readReports, sent{method: "GET", path: "/bucket/reports/a?versionId=null"}, 200},
		{"a list with the prefix", readReports, sent{method: "GET", path: "/bucket?list-type=2&prefix=reports/"}, 200},
		{"an escaped prefix", readReports, sent{method: "GET", path: "/bucket?list-type=2&prefix=%72eports%2F"}, 200},
		{"a list of all", readReports, sent{method: "GET", path: "/bucket?list-type=2"}, 403},
		{"a list of what is beside", readReports, sent{method: "GET", path: "/bucket?prefix=report"}, 403},
		{"writing what may be read", readReports, sent{method: "PUT", path: "/bucket/reports/b", body: "x"}, 403},
		{"writing", writeInbox, sent{method: "PUT", path: "/bucket/inbox/b", body: "x"}, 200},
		{"reading what may be written", writeInbox, sent{method: "GET", path: "/bucket/inbox/a"}, 403},
		{"an upload", writeInbox, sent{method: "POST", path: "/bucket/inbox/b?uploads"}, 200},
		{"a copy of what may be read", readReports + writeInbox, sent{method: "PUT", path: "/bucket/inbox/b", header: source("bucket/reports/a")}, 200},
		{"a copy of what may not", readReports + writeInbox, sent{method: "PUT", path: "/bucket/inbox/b", header: source("bucket/private")}, 403},
		{"a copy to where it may not", readReports + writeInbox, sent{method: "PUT", path: "/bucket/reports/b", header: source("bucket/reports/a")}, 403},
		{"tags, when they may be written", writeInbox, sent{method: "PUT", path: "/bucket/inbox/b", body: "x", header: []string{"X-Amz-Tagging: a=b"}}, 200},
		{"making a bucket", writeInbox, sent{method: "PUT", path: "/new-bucket"}, 403},
		{
			"with a reason", `permit (principal, action, resource) when { context has reason && context.reason like "TICKET-*" };`,
			sent{method: "GET", path: "/bucket/private", header: []string{"X-Chatelaine-Reason: TICKET-9"}},
			200,
		},
		{
			"without one", `permit (principal, action, resource) when { context has reason && context.reason like "TICKET-*" };`,
			sent{method: "GET", path: "/bucket/private"},
			403,
		},
		{"by the access key", `permit (principal, action, resource) when { context.accessKey == "` + bobKey + `" };`, sent{method: "GET", path: "/bucket/private"}, 200},
		{"by another", `permit (principal, action, resource) when { context.accessKey == "` + annKey + `" };`, sent{method: "GET", path: "/bucket/private"}, 403},
		{"from here", `permit (principal, action, resource) when { context.source.isLoopback() };`, sent{method: "GET", path: "/bucket/private"}, 200},
		{"with TLS only", `permit (principal, action, resource) when { context.tls };`, sent{method: "GET", path: "/bucket/private"}, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, policies := newPoliced(t)
			for _, key := range []string{"reports/a", "inbox/a", "private"} {
				w.put(key, "data")
			}
			policies.put(t, tt.text)
			code := map[int]string{403: "AccessDenied"}[tt.status]
			w.wants(w.send(asBob(tt.sent)), tt.status, code)
		})
	}
}

func TestEachKeyOfAMultipleDeleteIsDecided(t *testing.T) {
	w, policies := newPoliced(t)
	w.put("inbox/a", "data")
	w.put("private", "data")
	policies.put(t, `permit (principal == User::"bob", action == Action::"s3:DeleteObject", resource in Bucket::"bucket") when { resource.key like "inbox/*" };`)
	body := `<Delete><Object><Key>inbox/a</Key></Object><Object><Key>private</Key></Object></Delete>`
	a := w.send(asBob(sent{method: "POST", path: "/bucket?delete", body: body, header: []string{"Content-Md5: " + md5of(body)}}))
	w.wants(a, 200, "")
	if got := string(a.body); !strings.Contains(got, "<Deleted><Key>inbox/a</Key>") || !strings.Contains(got, "<Error><Key>private</Key><Code>AccessDenied</Code>") {
		t.Errorf("got %s", got)
	}
	equal(t, "stored", strings.Join(w.stored(), ","), "private")
}

func TestLiftingGovernanceIsARightOfItsOwn(t *testing.T) {
	w, policies := newPoliced(t)
	w.put("k", "data")
	const write = `permit (principal == User::"bob", action in Action::"write", resource);`
	lift := asBob(sent{method: "DELETE", path: "/bucket/k", header: []string{"X-Amz-Bypass-Governance-Retention: true"}})
	policies.put(t, write)
	w.wants(w.send(lift), 403, "AccessDenied")
	policies.put(t, write+`permit (principal == User::"bob", action == Action::"s3:BypassGovernanceRetention", resource);`)
	w.wants(w.send(lift), 204, "")
}

func TestABucketWithLocksNeedsTheRightToLock(t *testing.T) {
	w, policies := newPoliced(t)
	create := asBob(sent{method: "PUT", path: "/locked", header: []string{"X-Amz-Bucket-Object-Lock-Enabled: true"}})
	policies.put(t, `permit (principal, action == Action::"s3:CreateBucket", resource);`)
	w.wants(w.send(create), 403, "AccessDenied")
	w.wants(w.send(asBob(sent{method: "PUT", path: "/plain"})), 200, "")
}

func TestListsOfBucketsShowWhatThePrincipalMaySee(t *testing.T) {
	w, policies := newPoliced(t)
	for _, name := range []string{"alpha", "beta", "gamma"} {
		w.wants(w.send(sent{method: "PUT", path: "/" + name}), 200, "")
	}
	listed := func(query string) string {
		a := w.send(asBob(sent{method: "GET", path: "/" + query}))
		w.wants(a, 200, "")
		var names []string
		for _, m := range regexp.MustCompile(`<Name>([^<]*)</Name>`).FindAllStringSubmatch(string(a.body), -1) {
			names = append(names, m[1])
		}
		return strings.Join(names, ",")
	}
	equal(t, "by default", listed(""), "")
	const all = `permit (principal, action == Action::"s3:ListAllMyBuckets", resource);`
	policies.put(t, all+`permit (principal == User::"bob", action == Action::"s3:ListBucket", resource) when { resource.bucket like "*a" };
		forbid (principal, action, resource in Bucket::"beta");`)
	equal(t, "with a right to some", listed(""), "alpha,gamma")
	equal(t, "one a page", listed("?max-buckets=1"), "alpha")
	policies.put(t, `permit (principal, action == Action::"s3:ListBucket", resource);`)
	w.wants(w.send(asBob(sent{method: "GET", path: "/"})), 403, "AccessDenied")
	policies.fail.Store(true)
	w.wants(w.send(asBob(sent{method: "GET", path: "/"})), 503, "ServiceUnavailable")
}

func TestAChangeOfPoliciesCountsForTheNextRequest(t *testing.T) {
	w, policies := newPoliced(t)
	w.put("k", "data")
	get := asBob(sent{method: "GET", path: "/bucket/k"})
	for range 3 {
		policies.put(t, `permit (principal == User::"bob", action, resource);`)
		w.wants(w.send(get), 200, "")
		policies.put(t, "")
		w.wants(w.send(get), 403, "AccessDenied")
	}
	policies.fail.Store(true)
	a := w.send(get)
	w.wants(a, 503, "ServiceUnavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestAReasonMustBeSignedAndPrintable(t *testing.T) {
	w := newWorld(t)
	w.put("k", "data")
	long := strings.Repeat("x", maxReason)
	for _, tt := range []struct {
		name   string
		sent   sent
		status int
		code   string
		reason string
	}{
		{"signed", sent{header: []string{"X-Chatelaine-Reason: TICKET-1"}}, 200, "", "TICKET-1"},
		{"none", sent{}, 200, "", ""},
		{"UTF-8", sent{header: []string{"X-Chatelaine-Reason: für Ann"}}, 200, "", "für Ann"},
		{"the longest", sent{header: []string{"X-Chatelaine-Reason: " + long}}, 200, "", long},
		{"too long", sent{header: []string{"X-Chatelaine-Reason: " + long + "x"}}, 400, "InvalidArgument", ""},
		{"no UTF-8", sent{header: []string{"X-Chatelaine-Reason: \xff"}}, 400, "InvalidArgument", ""},
		{"twice", sent{header: []string{"X-Chatelaine-Reason: a", "X-Chatelaine-Reason: b"}}, 400, "InvalidRequest", ""},
		{"another header of ours", sent{header: []string{"X-Chatelaine-Season: summer"}}, 501, "NotImplemented", ""},
		{"unsigned", sent{spoil: func(r *http.Request) { r.Header.Set("X-Chatelaine-Reason", "later") }}, 403, "AccessDenied", ""},
		{"changed", sent{header: []string{"X-Chatelaine-Reason: a"}, spoil: func(r *http.Request) { r.Header.Set("X-Chatelaine-Reason", "b") }}, 403, "SignatureDoesNotMatch", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.sent.method, tt.sent.path = "GET", "/bucket/k"
			w.access.asked = nil
			w.wants(w.send(tt.sent), tt.status, tt.code)
			if tt.status == 200 {
				equal(t, "reason", w.access.last().Reason, tt.reason)
			} else if len(w.access.asked) > 0 {
				t.Errorf("access was asked: %+v", w.access.asked)
			}
		})
	}
}

// presigned makes a GET that ann has signed in its URL.
func (w *world) presigned(path string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.server.URL+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	creds := aws.Credentials{AccessKeyID: annKey, SecretAccessKey: annSecret}
	url, _, err := signer.PresignHTTP(w.t.Context(), creds, r, unsigned, "s3", region, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	if r, err = http.NewRequestWithContext(w.t.Context(), http.MethodGet, url, http.NoBody); err != nil {
		w.t.Fatal(err)
	}
	return r
}

func TestAPresignedRequestCanHaveAReasonToo(t *testing.T) {
	w := newWorld(t)
	w.put("k", "data")
	for _, name := range []string{"X-Chatelaine-Reason", "x-chatelaine-reason"} {
		w.wants(w.do(w.presigned("/bucket/k?X-Amz-Expires=60&"+name+"=TICKET-2")), 200, "")
		if got := w.access.last(); got.Reason != "TICKET-2" || !got.Presigned {
			t.Errorf("got %+v", got)
		}
	}
	w.wants(w.send(sent{method: "GET", path: "/bucket/k"}), 200, "")
	if w.access.last().Presigned {
		t.Error("a signed header counts as presigned")
	}
}

func TestAFormCanHaveAReasonTooAndCountsAsPresigned(t *testing.T) {
	w := newWorld(t)
	w.wants(w.post(form{file: "data", fields: map[string]string{"key": "k", "x-chatelaine-reason": "TICKET-3"}}), 204, "")
	if got := w.access.last(); got.Reason != "TICKET-3" || !got.Presigned {
		t.Errorf("got %+v", got)
	}
}
