package policy

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const examples = "../../deploy/examples/policies"

// example checks an example, together with others that it can be added to.
func example(t *testing.T, entities string, names ...string) *Set {
	t.Helper()
	var d Document
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(examples, name))
		if err != nil {
			t.Fatal(err)
		}
		d.Policies = append(d.Policies, text...)
	}
	if entities != "" {
		var err error
		if d.Entities, err = os.ReadFile(filepath.Join(examples, entities)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Check(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEveryExampleIsValid(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.cedar"))
	if err != nil || len(files) < 3 {
		t.Fatalf("got %v, %v", files, err)
	}
	for _, file := range files {
		example(t, "staff.json", filepath.Base(file))
	}
}

func TestTheExamplesDecideAsTheySay(t *testing.T) {
	staffed := example(t, "staff.json", "staff.cedar")
	guarded := example(t, "staff.json", "staff.cedar", "guardrails.cedar")
	backup := example(t, "", "backup.cedar")
	who := func(name string) func(*Request) { return func(q *Request) { q.Principal = name } }
	key := func(k string) func(*Request) { return func(q *Request) { q.Key = k } }
	bucket := func(b string) func(*Request) { return func(q *Request) { q.Bucket, q.Key = b, "" } }
	list := func(prefix string) func(*Request) { return func(q *Request) { q.Key, q.Prefix = "", prefix } }
	far := func(q *Request) { q.Source = netip.MustParseAddr("192.0.2.1") }
	plain := func(q *Request) { q.TLS = false }
	night := func(q *Request) { q.Time = monday().Add(12 * time.Hour) }
	program := func(q *Request) { q.Principal, q.Bucket, q.AccessKey = "backup", "backups", "AKBACKUPPROGRAM00000" }
	tests := []struct {
		name string
		set  *Set
		q    Request
		want string // the policies that permit, or "-" and those that forbid
	}{
		{"an analyst reads a report", staffed, ask("s3:GetObject"), "analysts-read-reports"},
		{"and lists reports", staffed, ask("s3:ListBucket", list("reports/2026")), "analysts-read-reports"},
		{"and nothing else", staffed, ask("s3:GetObject", key("payroll")), "-"},
		{"and lists nothing else", staffed, ask("s3:ListBucket", list("")), "-"},
		{"not from afar", staffed, ask("s3:GetObject", far), "-"},
		{"not in the clear", staffed, ask("s3:GetObject", plain), "-"},
		{"sees the bucket", staffed, ask("s3:GetBucketLocation", bucket("data")), "analysts-see-data"},
		{"the owner", staffed, ask("s3:PutObject", who("olga")), "owners"},
		{"her team's bucket", staffed, ask("s3:PutObject", func(q *Request) { q.Bucket = "blue" }), "team-buckets"},
		{"another team's", staffed, ask("s3:PutObject", func(q *Request) { q.Bucket = "red" }), "-"},
		{"platform makes buckets", staffed, ask("s3:CreateBucket", bucket("new"), who("pia"), func(q *Request) { q.Owner = "" }), "platform-makes-buckets"},
		{"others do not", staffed, ask("s3:CreateBucket", bucket("new"), func(q *Request) { q.Owner = "" }), "-"},
		{"an auditor with a reason", staffed, ask("s3:GetObject", who("otto"), func(q *Request) { q.Reason = "AUDIT-12" }), "audits-have-a-reason"},
		{"an auditor without", staffed, ask("s3:GetObject", who("otto")), "-"},
		{"the owner in the clear", guarded, ask("s3:GetObject", who("olga"), plain), "-encrypted-only"},
		{"the owner from afar", guarded, ask("s3:GetObject", who("olga"), far), "-offices-only"},
		{"the owner deletes by day", guarded, ask("s3:DeleteObject", who("olga")), "owners"},
		{"the owner deletes by night", guarded, ask("s3:DeleteObject", who("olga"), night), "-no-deleting-at-night"},
		{"the owner reads by night", guarded, ask("s3:GetObject", who("olga"), night), "owners"},
		{"the owner lifts a retention", guarded, ask("s3:BypassGovernanceRetention", who("olga")), "-nobody-lifts-governance"},
		{"a presigned URL to the archive", guarded, ask("s3:GetObject", who("olga"), func(q *Request) { q.Bucket, q.Presigned = "archive", true }), "-archive-is-not-passed-on"},
		{"an old key", guarded, ask("s3:GetObject", who("olga"), func(q *Request) {
			q.AccessKey, q.Time = "AKOLDKEYOFSOMEBODY00", time.Date(2027, 1, 1, 9, 0, 0, 0, time.UTC)
		}), "-old-key-ends"},
		{"an old key before", guarded, ask("s3:GetObject", who("olga"), func(q *Request) { q.AccessKey = "AKOLDKEYOFSOMEBODY00" }), "owners"},
		{"a backup is written", backup, ask("s3:PutObject", program), "backup-writes-and-reads"},
		{"and not deleted", backup, ask("s3:DeleteObjectVersion", program), "-"},
		{"nor by another key", backup, ask("s3:PutObject", program, func(q *Request) { q.AccessKey = "AKOTHER" }), "-no-other-key-of-it"},
	}
	for _, tt := range tests {
		d := tt.set.Decide(tt.q)
		got := strings.Join(d.Policies, ",")
		if !d.Allow {
			got = "-" + got
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
