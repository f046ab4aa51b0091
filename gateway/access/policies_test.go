package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"chatelaine/gateway/keys"
	"chatelaine/kms/policy"
)

// source is a Source that a test changes.
type source struct {
	now atomic.Pointer[keys.Policies]
	err error
}

// Policies implements Source.
func (s *source) Policies(context.Context) (*keys.Policies, error) { return s.now.Load(), s.err }

func (s *source) put(version uint64, text string) {
	s.now.Store(&keys.Policies{Version: version, Document: policy.Document{Policies: []byte(text)}})
}

func reading() Request {
	return Request{
		Principal: "bob", AccessKey: "AK", Action: "s3:GetObject", Bucket: "b", Owner: "ann", Key: "k",
		Source: netip.MustParseAddr("127.0.0.1"), Reason: "TICKET-1", RequestID: "r1", Presigned: true,
	}
}

func lastEntry(t *testing.T, out *bytes.Buffer) (e entry) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestADecisionIsRecordedWithWhatDeterminedIt(t *testing.T) {
	var s source
	var out bytes.Buffer
	p := New(&s, NewLog(&out))
	for i, tt := range []struct{ text, decision, policies string }{
		{`@id("read") permit (principal, action, resource);`, "allow", "read"},
		{`@id("read") permit (principal, action, resource); @id("hold") forbid (principal, action, resource);`, "deny", "hold"},
		{"", "deny", ""},
	} {
		s.put(uint64(i+5), tt.text)
		err := p.Authorize(t.Context(), reading())
		if (err == nil) != (tt.decision == "allow") || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: got %v", tt.text, err)
		}
		e := lastEntry(t, &out)
		if e.Decision != tt.decision || strings.Join(e.Policies, ",") != tt.policies || e.PolicyVersion != uint64(i+5) {
			t.Errorf("%s: recorded %+v", tt.text, e)
		}
		if e.Reason != "TICKET-1" || !e.Presigned {
			t.Errorf("recorded %+v", e)
		}
	}
}

func TestWithoutPoliciesNothingIsAllowedAndThatIsRecorded(t *testing.T) {
	var s source
	var out bytes.Buffer
	p := New(&s, NewLog(&out))
	s.err = keys.ErrUnavailable
	err := p.Authorize(t.Context(), reading())
	if !errors.Is(err, ErrUndecided) || !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("got %v, want ErrUndecided and its cause", err)
	}
	if e := lastEntry(t, &out); e.Decision != "deny" || len(e.Errors) != 1 {
		t.Errorf("recorded %+v", e)
	}
	if sees, err := p.Sees(t.Context(), reading()); sees || !errors.Is(err, ErrUndecided) {
		t.Errorf("got %t, %v", sees, err)
	}
	s.err = nil
	s.put(1, "permit (principal, action")
	for range 2 {
		if err := p.Authorize(t.Context(), reading()); !errors.Is(err, ErrUndecided) {
			t.Errorf("policies that do not compile: got %v", err)
		}
	}
	s.put(2, "permit (principal, action, resource);")
	if err := p.Authorize(t.Context(), reading()); err != nil {
		t.Errorf("after they were put right: got %v", err)
	}
	full := New(&source{err: keys.ErrUnavailable}, NewLog(&fullDisk{}))
	if err := full.Authorize(t.Context(), reading()); !errors.Is(err, ErrUnrecorded) {
		t.Errorf("on a full disk: got %v, want ErrUnrecorded", err)
	}
}

func TestBucketsAreShownByPolicy(t *testing.T) {
	var s source
	p := New(&s, NewLog(io.Discard))
	s.put(1, `permit (principal == User::"bob", action == Action::"s3:ListBucket", resource == Bucket::"b");`)
	for bucket, want := range map[string]bool{"b": true, "c": false} {
		r := reading()
		r.Bucket = bucket
		if got, err := p.Sees(t.Context(), r); err != nil || got != want {
			t.Errorf("%s: got %t, %v", bucket, got, err)
		}
	}
}

// BenchmarkAuthorize is a decision among 51 policies, of which all conditions must be
// evaluated, with its record. The decision alone is package policy's benchmark.
func BenchmarkAuthorize(b *testing.B) {
	var s source
	var text strings.Builder
	for i := range 50 {
		fmt.Fprintf(&text, "permit (principal, action in Action::\"read\", resource) when { resource is Object && resource.key like \"folder%d/*\" };\n", i)
	}
	s.put(1, text.String()+`permit (principal == User::"bob", action, resource);`)
	p := New(&s, NewLog(io.Discard))
	r := reading()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := p.Authorize(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
