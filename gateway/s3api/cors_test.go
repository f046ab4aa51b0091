package s3api

import (
	"net/http"
	"strings"
	"testing"
)

const corsRules = "<CORSConfiguration>" +
	"<CORSRule><AllowedOrigin>https://a.example</AllowedOrigin><AllowedOrigin>https://*.b.example</AllowedOrigin>" +
	"<AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod><AllowedHeader>x-amz-*</AllowedHeader><AllowedHeader>Content-Type</AllowedHeader>" +
	"<ExposeHeader>ETag</ExposeHeader><ExposeHeader>x-amz-version-id</ExposeHeader><MaxAgeSeconds>60</MaxAgeSeconds></CORSRule>" +
	"<CORSRule><ID>any</ID><AllowedOrigin>*</AllowedOrigin><AllowedMethod>HEAD</AllowedMethod></CORSRule></CORSConfiguration>"

// ask sends a browser's question, without a signature.
func (w *world) ask(path string, header ...string) answer {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodOptions, w.server.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return w.do(r)
}

func allowed(a answer) string {
	var out []string
	for _, name := range []string{"Origin", "Methods", "Headers", "Credentials"} {
		out = append(out, a.header.Get("Access-Control-Allow-"+name))
	}
	out = append(out, a.header.Get("Access-Control-Expose-Headers"), a.header.Get("Access-Control-Max-Age"))
	return strings.Join(out, "|")
}

func TestPreflightsAreAnsweredByTheRules(t *testing.T) {
	w := newWorld(t)
	const origin, method, headers = "Origin: https://a.example", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: "
	w.wants(w.ask("/bucket/k", origin, method), 403, "AccessForbidden")
	w.wants(w.send(sent{method: "PUT", path: "/bucket?cors", body: corsRules}), 200, "")
	for _, tt := range []struct {
		name, path string
		header     []string
		status     int
		code, want string
	}{
		{"allowed", "/bucket/k", []string{origin, method}, 200, "", "https://a.example|GET, PUT||true|ETag, x-amz-version-id|60"},
		{"a bucket", "/bucket?uploads", []string{origin, method}, 200, "", "https://a.example|GET, PUT||true|ETag, x-amz-version-id|60"},
		{"headers", "/bucket/k", []string{origin, method, headers + "X-Amz-Date, content-type"}, 200, "", "https://a.example|GET, PUT|x-amz-date, content-type|true|ETag, x-amz-version-id|60"},
		{"a wildcard", "/bucket/k", []string{"Origin: https://x.b.example", method}, 200, "", "https://x.b.example|GET, PUT||true|ETag, x-amz-version-id|60"},
		{"any origin", "/bucket/k", []string{"Origin: null", "Access-Control-Request-Method: HEAD"}, 200, "", "*|HEAD||||"},
		{"another origin", "/bucket/k", []string{"Origin: https://c.example", method}, 403, "AccessForbidden", "|||||"},
		{"the wildcard's own end", "/bucket/k", []string{"Origin: https://b.example", method}, 403, "AccessForbidden", "|||||"},
		{"another method", "/bucket/k", []string{origin, "Access-Control-Request-Method: DELETE"}, 403, "AccessForbidden", "|||||"},
		{"another header", "/bucket/k", []string{origin, method, headers + "X-Amz-Date, X-Other"}, 403, "AccessForbidden", "|||||"},
		{"no origin", "/bucket/k", []string{method}, 400, "BadRequest", "|||||"},
		{"no method", "/bucket/k", []string{origin}, 400, "BadRequest", "|||||"},
		{"a method that is none", "/bucket/k", []string{origin, "Access-Control-Request-Method: get"}, 400, "BadRequest", "|||||"},
		{"a header that is none", "/bucket/k", []string{origin, method, headers + "a b"}, 400, "BadRequest", "|||||"},
		{"no such bucket", "/nothing/k", []string{origin, method}, 404, "NoSuchBucket", "|||||"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := w.ask(tt.path, tt.header...)
			w.wants(a, tt.status, tt.code)
			equal(t, "allowed", allowed(a), tt.want)
			if tt.status == 200 && !strings.Contains(a.header.Get("Vary"), "Origin") {
				t.Error("the answer may be kept for other origins")
			}
		})
	}
}

func TestAnswersTellABrowserWhoMaySeeThem(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v")
	w.wants(w.send(sent{method: "PUT", path: "/bucket?cors", body: corsRules}), 200, "")
	for _, tt := range []struct {
		name string
		s    sent
		want string
	}{
		{"allowed", sent{method: "GET", path: "/bucket/k", header: []string{"Origin: https://a.example"}}, "https://a.example"},
		{"an error", sent{method: "GET", path: "/bucket/none", header: []string{"Origin: https://a.example"}}, "https://a.example"},
		{"not signed right", sent{method: "GET", path: "/bucket/k", secret: "wrong", key: annKey, header: []string{"Origin: https://a.example"}}, "https://a.example"},
		{"another method", sent{method: "DELETE", path: "/bucket/none", header: []string{"Origin: https://a.example"}}, ""},
		{"another origin", sent{method: "GET", path: "/bucket/k", header: []string{"Origin: https://c.example"}}, ""},
		{"no origin", sent{method: "GET", path: "/bucket/k"}, ""},
		{"by a method that only preflights name", sent{method: "GET", path: "/bucket/k", header: []string{"Origin: https://a.example", "Access-Control-Request-Method: DELETE"}}, ""},
		{"by headers that only preflights name", sent{method: "GET", path: "/bucket/k", header: []string{"Origin: https://a.example", "Access-Control-Request-Headers: X-Other"}}, ""},
		{"by all that preflights name", sent{method: "DELETE", path: "/bucket/none", header: []string{"Origin: https://a.example", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-amz-a"}}, "https://a.example"},
		{"another bucket", sent{method: "GET", path: "/nothing/k", header: []string{"Origin: https://a.example"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := w.send(tt.s)
			equal(t, "origin", a.header.Get("Access-Control-Allow-Origin"), tt.want)
		})
	}
	for _, header := range []string{"Access-Control-Request-Method: x", "Access-Control-Request-Headers: a b"} {
		s := sent{method: "PUT", path: "/bucket/new", header: []string{"Origin: https://a.example", header}}
		w.wants(w.send(s), 400, "BadRequest")
		w.wants(w.send(sent{method: "DELETE", path: "/bucket?cors"}), 204, "")
		w.wants(w.send(s), 200, "") // without rules nobody looks
		w.wants(w.send(sent{method: "PUT", path: "/bucket?cors", body: corsRules}), 200, "")
	}
}

func TestCORSRulesAreJudgedAsS3Does(t *testing.T) {
	w := newWorld(t)
	get := sent{method: "GET", path: "/bucket?cors"}
	w.wants(w.send(get), 404, "NoSuchCORSConfiguration")
	rule := func(inner string) string {
		return "<CORSConfiguration><CORSRule>" + inner + "</CORSRule></CORSConfiguration>"
	}
	const origin, method = "<AllowedOrigin>*</AllowedOrigin>", "<AllowedMethod>GET</AllowedMethod>"
	for _, tt := range []struct{ name, body, code string }{
		{"nothing", "", "MissingRequestBodyError"},
		{"no rules", "<CORSConfiguration/>", "MalformedXML"},
		{"no origin", rule(method), "MalformedXML"},
		{"no method", rule(origin), "MalformedXML"},
		{"two wildcards", rule("<AllowedOrigin>*.x.*</AllowedOrigin>" + method), "InvalidRequest"},
		{"another method", rule(origin + "<AllowedMethod>PATCH</AllowedMethod>"), "InvalidRequest"},
		{"a small method", rule(origin + "<AllowedMethod>get</AllowedMethod>"), "InvalidRequest"},
		{"a header that is none", rule(origin + method + "<AllowedHeader>a b</AllowedHeader>"), "InvalidRequest"},
		{"two wildcards in a header", rule(origin + method + "<AllowedHeader>*a*</AllowedHeader>"), "InvalidRequest"},
		{"an exposed header that is none", rule(origin + method + "<ExposeHeader>a/b</ExposeHeader>"), "InvalidRequest"},
		{"an exposed wildcard", rule(origin + method + "<ExposeHeader>x-*</ExposeHeader>"), "InvalidRequest"},
		{"a long ID", rule("<ID>" + strings.Repeat("x", 256) + "</ID>" + origin + method), "MalformedXML"},
		{"101 rules", "<CORSConfiguration>" + strings.Repeat("<CORSRule>"+origin+method+"</CORSRule>", 101) + "</CORSConfiguration>", "MalformedXML"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.wants(w.send(sent{method: "PUT", path: "/bucket?cors", body: tt.body}), 400, tt.code)
		})
	}
	w.wants(w.send(get), 404, "NoSuchCORSConfiguration")
	w.wants(w.send(sent{method: "PUT", path: "/bucket?cors", body: corsRules}), 200, "")
	if text := string(w.send(get).body); strings.Count(text, "<CORSRule>") != 2 || !strings.Contains(text, "<ID>any</ID>") {
		t.Errorf("got %s", text)
	}
	w.wants(w.send(sent{method: "DELETE", path: "/bucket?cors"}), 204, "")
	w.wants(w.send(get), 404, "NoSuchCORSConfiguration")
}

func TestWildcardsMatchOnce(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"*", "x", true}, {"a*", "a", true}, {"a*b", "ab", true}, {"a*b", "axb", true}, {"ab*ba", "aba", false}, {"a", "a", true}, {"a", "b", false}, {"", "", true}, {"a*", "b", false},
	} {
		if got := matchWildcard(tt.pattern, tt.s); got != tt.want {
			t.Errorf("%q on %q: got %v", tt.pattern, tt.s, got)
		}
	}
}
