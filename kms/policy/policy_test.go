package policy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
)

// monday is a Monday, 09:30 UTC.
func monday() time.Time { return time.Date(2026, 3, 2, 9, 30, 0, 0, time.UTC) }

// ask is a Request by ann from the office, changed by f.
func ask(action string, f ...func(*Request)) Request {
	q := Request{
		Principal: "ann", AccessKey: "AKANN", Action: action, Bucket: "data", Owner: "olga", Key: "reports/q1",
		Source: netip.MustParseAddr("10.1.2.3"), TLS: true, Time: monday(),
	}
	for _, change := range f {
		change(&q)
	}
	return q
}

func mustCheck(t testing.TB, text, entities string) *Set {
	t.Helper()
	s, err := Check(Document{Policies: []byte(text), Entities: []byte(entities)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const staff = `[
  {"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Group", "id": "analysts"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]},
  {"uid": {"type": "User", "id": "ann"}, "attrs": {}, "parents": [{"type": "Group", "id": "analysts"}], "tags": {"team": "blue"}},
  {"uid": {"type": "User", "id": "bob"}, "attrs": {}, "parents": []}
]`

func TestDecisions(t *testing.T) {
	const readData = `@id("read") permit (principal, action in Action::"read", resource in Bucket::"data");`
	bob := func(q *Request) { q.Principal = "bob" }
	at := func(y int, m time.Month, d, h int) func(*Request) {
		return func(q *Request) { q.Time = time.Date(y, m, d, h, 0, 0, 0, time.UTC) }
	}
	from := func(addr string) func(*Request) { return func(q *Request) { q.Source = netip.MustParseAddr(addr) } }
	key := func(k string) func(*Request) { return func(q *Request) { q.Key = k } }
	because := func(reason string) func(*Request) { return func(q *Request) { q.Reason = reason } }
	listing := func(prefix string) Request {
		return ask("s3:ListBucket", func(q *Request) { q.Key, q.Prefix = "", prefix })
	}
	const (
		prefixed   = `permit (principal, action, resource) when { resource is Object && resource.key like "reports/*" };`
		office     = `permit (principal, action, resource) when { context.source.isInRange(ip("10.0.0.0/8")) };`
		secure     = readData + `@id("plain") forbid (principal, action, resource) unless { context.tls };`
		until      = `permit (principal, action, resource) when { context.time < datetime("2026-04-01") };`
		hours      = `permit (principal, action, resource) when { context.hour >= 8 && context.hour < 18 && context.weekday <= 5 };`
		reasoned   = `permit (principal, action, resource) when { context has reason && context.reason like "TICKET-*" };`
		ownPrefix  = `permit (principal, action == Action::"s3:ListBucket", resource) when { context has prefix && context.prefix like "reports/*" };`
		analysts   = `permit (principal in Group::"staff", action, resource);`
		blue       = `permit (principal, action, resource) when { principal.hasTag("team") && principal.getTag("team") == "blue" };`
		one        = `permit (principal == User::"ann", action == Action::"s3:GetObject", resource == Object::"data/reports/q1");`
		unsigned   = `permit (principal, action, resource) unless { context.presigned };`
		key1       = `permit (principal, action, resource) when { context.accessKey == "AKANN" };`
		overridden = readData + `@id("not-bob") forbid (principal == User::"bob", action, resource in Bucket::"data");`
		owner      = `permit (principal, action, resource) when { resource has owner && resource.owner == principal };`
		teams      = `permit (principal, action, resource) when { resource has bucket && resource.bucket like "da*" };`
	)
	tests := []struct {
		name, text string
		q          Request
		want       bool
		policies   string // that determined it, by commas
	}{
		{"no policy, nothing", "", ask("s3:GetObject"), false, ""},
		{"a permit", readData, ask("s3:GetObject"), true, "read"},
		{"another bucket", readData, ask("s3:GetObject", func(q *Request) { q.Bucket = "other" }), false, ""},
		{"a group of actions has no other", readData, ask("s3:PutObject"), false, ""},
		{"a bucket action of the group", readData, listing(""), true, "read"},
		{"forbid wins", overridden, ask("s3:GetObject", bob), false, "not-bob"},
		{"and does not concern others", overridden, ask("s3:GetObject"), true, "read"},
		{"key prefix", prefixed, ask("s3:GetObject"), true, "policy1"},
		{"another key", prefixed, ask("s3:GetObject", key("private")), false, ""},
		{"a key that only contains the prefix", prefixed, ask("s3:GetObject", key("x/reports/q1")), false, ""},
		{"a bucket has no key", prefixed, listing(""), false, ""},
		{"inside the network", office, ask("s3:GetObject"), true, "policy1"},
		{"outside of it", office, ask("s3:GetObject", from("192.0.2.1")), false, ""},
		{"inside it, mapped", office, ask("s3:GetObject", from("::ffff:10.1.1.1")), true, "policy1"},
		{"version 6", office, ask("s3:GetObject", from("2001:db8::1")), false, ""},
		{"with TLS", secure, ask("s3:GetObject"), true, "read"},
		{"without TLS", secure, ask("s3:GetObject", func(q *Request) { q.TLS = false }), false, "plain"},
		{"before it expires", until, ask("s3:GetObject"), true, "policy1"},
		{"after it has expired", until, ask("s3:GetObject", at(2026, 4, 1, 0)), false, ""},
		{"in office hours", hours, ask("s3:GetObject"), true, "policy1"},
		{"in the evening", hours, ask("s3:GetObject", at(2026, 3, 2, 18)), false, ""},
		{"on Sunday", hours, ask("s3:GetObject", at(2026, 3, 8, 10)), false, ""},
		{"with a reason", reasoned, ask("s3:GetObject", because("TICKET-7")), true, "policy1"},
		{"with another", reasoned, ask("s3:GetObject", because("curiosity")), false, ""},
		{"with none", reasoned, ask("s3:GetObject"), false, ""},
		{"list of a prefix", ownPrefix, listing("reports/2026"), true, "policy1"},
		{"list of everything", ownPrefix, listing(""), false, ""},
		{"a member of a member group", analysts, ask("s3:GetObject"), true, "policy1"},
		{"no member", analysts, ask("s3:GetObject", bob), false, ""},
		{"nobody that is known", analysts, ask("s3:GetObject", func(q *Request) { q.Principal = "zoe" }), false, ""},
		{"a tag", blue, ask("s3:GetObject"), true, "policy1"},
		{"no such tag", blue, ask("s3:GetObject", bob), false, ""},
		{"one object", one, ask("s3:GetObject"), true, "policy1"},
		{"and no other", one, ask("s3:GetObject", key("reports/q2")), false, ""},
		{"signed in a header", unsigned, ask("s3:GetObject"), true, "policy1"},
		{"presigned", unsigned, ask("s3:GetObject", func(q *Request) { q.Presigned = true }), false, ""},
		{"this access key", key1, ask("s3:GetObject"), true, "policy1"},
		{"another access key", key1, ask("s3:GetObject", func(q *Request) { q.AccessKey = "AKOLD" }), false, ""},
		{"the owner", owner, ask("s3:GetObject", func(q *Request) { q.Owner = "ann" }), true, "policy1"},
		{"not the owner", owner, ask("s3:GetObject"), false, ""},
		{"names of buckets", teams, ask("s3:GetObject"), true, "policy1"},
		{"names of other buckets", teams, ask("s3:GetObject", func(q *Request) { q.Bucket = "other" }), false, ""},
		{"unknown action", readData, ask("s3:GetEverything"), false, ""},
		{"nobody", readData, ask("s3:GetObject", func(q *Request) { q.Principal = "" }), false, ""},
		{"from nowhere", readData, ask("s3:GetObject", func(q *Request) { q.Source = netip.Addr{} }), false, ""},
		{"an object of no bucket", `permit (principal, action, resource);`, ask("s3:GetObject", func(q *Request) { q.Bucket = "" }), false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := mustCheck(t, tt.text, staff)
			got := s.Decide(tt.q)
			if got.Allow != tt.want || strings.Join(got.Policies, ",") != tt.policies {
				t.Errorf("got %+v, want %t by %q", got, tt.want, tt.policies)
			}
			if explained := byOutcomes(s.Explain(tt.q)); explained != tt.want {
				t.Errorf("explained as %t, want %t", explained, tt.want)
			}
		})
	}
}

// byOutcomes decides anew, by what the explanation says of each policy. There Cedar
// looks at scopes too.
func byOutcomes(e Explanation) bool {
	var permitted bool
	for _, o := range e.Outcomes {
		failed := len(o.Misses) > 0 && o.Misses[0].Error != ""
		if o.Effect == "forbid" && (o.Applies || failed) {
			return false
		}
		permitted = permitted || o.Applies && o.Effect == "permit"
	}
	return permitted
}

func TestTheDefaultLetsOwnersDoEverythingAndNobodyElseAnything(t *testing.T) {
	s, err := Check(Default())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range Actions() {
		q := ask(a.Name)
		if a.On != OnObject {
			q.Key = ""
		}
		if a.On == OnService {
			q.Bucket, q.Owner = "", ""
		}
		everybody := a.Name == "s3:ListAllMyBuckets" || a.Name == "s3:CreateBucket"
		if got := s.Decide(q).Allow; got != everybody {
			t.Errorf("%s by a stranger: got %t, want %t", a.Name, got, everybody)
		}
		q.Principal = "olga"
		if got := s.Decide(q).Allow; !got {
			t.Errorf("%s by the owner was denied", a.Name)
		}
	}
}

func TestAForbidThatCannotBeEvaluatedApplies(t *testing.T) {
	const text = `permit (principal, action, resource);
		@id("overflow") forbid (principal, action, resource) when { context.hour * 9223372036854775807 * 2 < 0 };`
	got := mustCheck(t, text, "").Decide(ask("s3:GetObject"))
	if got.Allow || strings.Join(got.Policies, ",") != "overflow" || len(got.Errors) != 1 {
		t.Errorf("got %+v, want a denial by %q with its error", got, "overflow")
	}
	const permit = `permit (principal, action, resource) when { context.hour * 9223372036854775807 * 2 < 0 };`
	if got := mustCheck(t, permit, "").Decide(ask("s3:GetObject")); got.Allow || len(got.Errors) != 1 {
		t.Errorf("got %+v, want a denial and an error", got)
	}
}

func TestWhatIsWrongIsRefusedWithItsPlaceAndAHint(t *testing.T) {
	tests := []struct{ name, text, entities, want string }{
		{"syntax", "permit (principal, action, resource)\nwhen { context.tls ;", "", "2:21"},
		{"unknown action", "permit (principal,\n  action == Action::\"s3:GetObjct\", resource);", "", `2:13: policy "policy1": unrecognized action`},
		{"hint at an action", `permit (principal, action == Action::"s3:GetObjct", resource);`, "", `did you mean "s3:GetObject"`},
		{"unknown type", `permit (principal == Usr::"ann", action, resource);`, "", `did you mean "User"`},
		{"unknown attribute of the context", "permit (principal, action, resource)\nwhen { context.tsl };", "", `2:16: policy "policy1": attribute ` + "`tsl`"},
		{"hint at an attribute", `permit (principal, action, resource) when { context.tsl };`, "", `did you mean "tls"`},
		{"unknown attribute of an object", `permit (principal, action == Action::"s3:GetObject", resource) when { resource.size > 5 };`, "", "attribute `size`"},
		{"optional attribute", `permit (principal, action, resource) when { context.reason == "x" };`, "", "has reason &&"},
		{"bad types", `permit (principal, action, resource) when { context.hour == "9" };`, "", "not compatible"},
		{"bad network", `permit (principal, action, resource) when { context.source.isInRange(ip("10.0.0.0/99")) };`, "", "failed to parse as IP address"},
		{"object action on a bucket", `permit (principal, action == Action::"s3:GetObject", resource == Bucket::"data");`, "", "in it?"},
		{"group that is not there", `permit (principal in Group::"analyst", action, resource);`, staff, `did you mean "analysts"`},
		{"group in a condition", `permit (principal, action, resource) when { principal in Group::"nobody" };`, staff, `no Group::"nobody"`},
		{"two of one id", `@id("a") permit (principal, action, resource); @id("a") forbid (principal, action, resource);`, "", `id "a"`},
		{"template", `permit (principal == ?principal, action, resource);`, "", "1:"},
		{"entities that are no JSON", "", "{", "entities"},
		{"an entity that the gateway makes", "", `[{"uid":{"type":"Bucket","id":"b"},"attrs":{},"parents":[]}]`, "only User and Group"},
		{"a group that is not there", "", `[{"uid":{"type":"User","id":"u"},"attrs":{},"parents":[{"type":"Group","id":"g"}]}]`, `Group::"g", which is not here`},
		{"a group in itself", "", `[{"uid":{"type":"Group","id":"g"},"attrs":{},"parents":[{"type":"Group","id":"g"}]}]`, "which is in it"},
		{"groups in a circle", "", `[{"uid":{"type":"Group","id":"a"},"attrs":{},"parents":[{"type":"Group","id":"b"}]},
			{"uid":{"type":"Group","id":"b"},"attrs":{},"parents":[{"type":"Group","id":"a"}]}]`, "which is in it"},
		{"a user in a user", "", `[{"uid":{"type":"User","id":"a"},"attrs":{},"parents":[{"type":"User","id":"b"}]}]`, "only a Group has members"},
		{"an attribute of a user", "", `[{"uid":{"type":"User","id":"a"},"attrs":{"x":1},"parents":[]}]`, "User::\"a\""},
		{"a tag that is a number", "", `[{"uid":{"type":"User","id":"a"},"attrs":{},"parents":[],"tags":{"x":1}}]`, "User::\"a\""},
		{"deep brackets", "permit (principal, action, resource) when { " + strings.Repeat("(", 1000) + "true" + strings.Repeat(")", 1000) + " };", "", "nested"},
		{"too long", strings.Repeat(" ", kms.MaxPolicy+1), "", "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Check(Document{Policies: []byte(tt.text), Entities: []byte(tt.entities)})
			if !errors.Is(err, kms.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want kms.ErrInvalid with %q", err, tt.want)
			}
		})
	}
}

func TestAnExplanationSaysWhatWasMissing(t *testing.T) {
	s := mustCheck(t, `@id("office") permit (principal in Group::"staff", action in Action::"read", resource in Bucket::"data")
when { context.tls && context.source.isInRange(ip("10.0.0.0/8")) };
@id("bob") permit (principal == User::"bob", action, resource);
@id("hold") forbid (principal, action, resource) unless { context.hour < 20 };`, staff)
	got := s.Explain(ask("s3:GetObject", func(q *Request) { q.Source = netip.MustParseAddr("192.0.2.1") }))
	if got.Allow || len(got.Outcomes) != 3 {
		t.Fatalf("got %+v", got)
	}
	near := got.Outcomes[0]
	if near.ID != "office" || near.Line != 1 || near.Applies || len(near.Misses) != 1 {
		t.Fatalf("the nearest: got %+v, want office with one miss", near)
	}
	if m := near.Misses[0]; m.Part != "when" || m.Text != `context.source.isInRange(ip("10.0.0.0/8"))` {
		t.Errorf("got %+v", m)
	}
	if hold := got.Outcomes[1]; hold.ID != "hold" || hold.Misses[0].Part != "unless" || hold.Misses[0].Text != "context.hour < 20" {
		t.Errorf("got %+v", hold)
	}
	if bob := got.Outcomes[2]; bob.ID != "bob" || bob.Misses[0].Part != "principal" || bob.Misses[0].Text != `principal == User::"bob"` {
		t.Errorf("got %+v", bob)
	}
}

func TestBucketsAreSeenByThoseWhoMayDoSomethingToThem(t *testing.T) {
	tests := []struct {
		name, text string
		want       bool
	}{
		{"nothing", "", false},
		{"list", `permit (principal, action == Action::"s3:ListBucket", resource == Bucket::"data");`, true},
		{"another bucket", `permit (principal, action == Action::"s3:ListBucket", resource == Bucket::"other");`, false},
		{"its location", `permit (principal, action == Action::"s3:GetBucketLocation", resource);`, true},
		{"delete it", `permit (principal, action == Action::"s3:DeleteBucket", resource);`, true},
		{"make buckets", `permit (principal, action == Action::"s3:CreateBucket", resource);`, false},
		{"an object in it", `permit (principal, action == Action::"s3:GetObject", resource);`, false},
		{"forbidden", `permit (principal, action, resource); forbid (principal, action, resource in Bucket::"data");`, false},
	}
	for _, tt := range tests {
		if got := mustCheck(t, tt.text, "").Sees(ask("s3:ListAllMyBuckets")); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(defaultPolicies, staff)
	f.Add(`@id("a") permit (principal in Group::"staff", action in [Action::"read"], resource is Object in Bucket::"b") when { context has reason };`, "[]")
	f.Add(`forbid (principal, action, resource) unless { if context.tls then true else resource.key like "\*" };`, "")
	f.Add(`permit (principal is User in Group::"analysts", action, resource == Object::"data/reports/q1"); forbid (principal, action, resource is Bucket);`, staff)
	f.Fuzz(func(t *testing.T, text, entities string) {
		s, err := Check(Document{Policies: []byte(text), Entities: []byte(entities)})
		if err != nil {
			if !errors.Is(err, kms.ErrInvalid) {
				t.Errorf("got %v, want kms.ErrInvalid", err)
			}
			return
		}
		q := ask("s3:GetObject")
		if decided, explained := s.Decide(q).Allow, byOutcomes(s.Explain(q)); decided != explained {
			t.Errorf("decided %t, explained %t", decided, explained)
		}
		if _, err := Compile(Document{Policies: []byte(text), Entities: []byte(entities)}); err != nil {
			t.Errorf("checked but not compiled: %v", err)
		}
	})
}
