package frontdoor

import (
	"context"
	"io"
	"strings"
	"testing"

	"chatelaine/gateway/access"
	"chatelaine/gateway/keys"
	"chatelaine/kms/policy"
)

// source gives one set of policies.
type source struct{ policies *keys.Policies }

// Policies implements access.Source.
func (s source) Policies(context.Context) (*keys.Policies, error) { return s.policies, nil }

// TestNoHeaderSaysWhereARequestComesFrom: policies and the log of decisions go by the
// connection alone, whatever a client says that a proxy said.
func TestNoHeaderSaysWhereARequestComesFrom(t *testing.T) {
	lies := []string{
		"x-forwarded-for: 10.1.2.3", "x-forwarded-for: 10.1.2.3, 127.0.0.1", "x-real-ip: 10.1.2.3", "forwarded: for=10.1.2.3;proto=https",
		"true-client-ip: 10.1.2.3", "x-client-ip: 10.1.2.3", "cf-connecting-ip: 10.1.2.3", "x-cluster-client-ip: 10.1.2.3", "x-forwarded: 10.1.2.3",
		"x-forwarded-proto: https", "x-forwarded-ssl: on", "front-end-https: on", "x-forwarded-scheme: https",
	}
	for _, tt := range []struct {
		name, when string
		status     int
	}{
		{"true", `context.source.isInRange(ip("127.0.0.0/8")) && !context.tls`, 200},
		{"a network", `context.source.isInRange(ip("10.0.0.0/8"))`, 403},
		{"TLS", `context.tls`, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := &record{}
			text := `permit (principal, action, resource) when { ` + tt.when + ` || !(resource is Object) || resource.key == "kept" && action == Action::"s3:PutObject" };`
			d := policy.Document{Policies: []byte(text)}
			if err := policy.Validate(d); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, func(o *options) {
				o.gateway.Authorizer = access.New(source{&keys.Policies{Document: d}}, access.NewLog(log))
			})
			for _, lie := range lies {
				w.wants(shot{method: "GET", path: "/" + bucket + "/kept", loose: []string{lie}}, tt.status, "")
			}
			if s := log.String(); strings.Contains(s, "10.1.2.3") || !strings.Contains(s, `"source":"127.0.0.1"`) {
				t.Errorf("the log of decisions has the lie, or not the truth: %s", s)
			}
		})
	}
}

// heads are the lines of an answer's header.
func (w *world) heads(raw string) []string {
	w.t.Helper()
	conn := w.dial()
	_, _ = io.WriteString(conn, raw)
	text, err := io.ReadAll(conn)
	if err != nil || len(text) == 0 {
		w.t.Fatalf("got %d bytes and %v, want an answer", len(text), err)
	}
	head, _, _ := strings.Cut(string(text), "\r\n\r\n")
	return strings.Split(strings.ToLower(head), "\r\n")
}
