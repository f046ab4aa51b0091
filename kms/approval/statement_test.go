package approval

import (
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
)

func request() Request {
	return Request{
		Instance: strings.Repeat("ab", 16), ID: strings.Repeat("01", 16), Rules: "1:" + strings.Repeat("f", 64),
		Operation: kms.Operation{
			Action: kms.ActionDestroy, Resource: "key/main.v1", Actor: "unix:root", Reason: "für \"x\"\nverdict \"approve\"",
			Params: map[string]string{"b": "2", "a": "1"},
		},
		Requester: "alice",
		Created:   time.Date(2026, 8, 3, 10, 0, 0, 0, time.UTC), Expires: time.Date(2026, 8, 6, 10, 0, 0, 0, time.UTC),
	}
}

// The form of a statement never changes: signatures are over it.
func TestTheStatementsForm(t *testing.T) {
	want := `chatelaine dual control, version 1
verdict "approve"
instance "abababababababababababababababab"
request "01010101010101010101010101010101"
rules "1:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
action "key.destroy"
resource "key/main.v1"
param "a" "1"
param "b" "2"
actor "unix:root"
requester "alice"
reason "f\u00fcr \"x\"\nverdict \"approve\""
created "2026-08-03T10:00:00Z"
expires "2026-08-06T10:00:00Z"
`
	if got := string(request().Statement(Approve)); got != want {
		t.Errorf("got %s", got)
	}
	q, v, err := ParseStatement([]byte(want))
	if err != nil || v != Approve || string(q.Statement(v)) != want {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTheOneFormIsAStatement(t *testing.T) {
	good := string(request().Statement(Ask))
	tests := map[string]string{
		"empty":         "",
		"another":       strings.Replace(good, "version 1", "version 2", 1),
		"space":         strings.Replace(good, "verdict ", "verdict  ", 1),
		"line end":      strings.TrimSuffix(good, "\n"),
		"carriage":      strings.ReplaceAll(good, "\n", "\r\n"),
		"order":         strings.Replace(good, "param \"a\" \"1\"\nparam \"b\" \"2\"", "param \"b\" \"2\"\nparam \"a\" \"1\"", 1),
		"twice":         strings.Replace(good, "actor", "actor \"x\"\nactor", 1),
		"unknown line":  good + "more \"x\"\n",
		"missing line":  strings.Replace(good, "requester \"alice\"\n", "", 1),
		"other quoting": strings.Replace(good, `"alice"`, "`alice`", 1),
		"escape":        strings.Replace(good, `"alice"`, `"\u0061lice"`, 1),
		"verdict":       strings.Replace(good, `"ask"`, `"maybe"`, 1),
		"action":        strings.Replace(good, "key.destroy", "key.eat", 1),
		"short id":      strings.Replace(good, `"0101`, `"01`, 1),
		"upper id":      strings.Replace(good, `"abab`, `"ABAB`, 1),
		"time":          strings.Replace(good, "10:00:00Z", "10:00:00.5Z", 1),
		"zone":          strings.Replace(good, "10:00:00Z", "10:00:00+01:00", 1),
		"ends first":    strings.Replace(good, "2026-08-06", "2026-08-02", 1),
		"no UTF-8":      strings.Replace(good, `"alice"`, `"\xff"`, 1),
		"long":          strings.Replace(good, `"alice"`, `"`+strings.Repeat("a", maxField+1)+`"`, 1),
		"huge":          strings.Replace(good, `"alice"`, `"`+strings.Repeat("a", maxStatement)+`"`, 1),
	}
	for name, text := range tests {
		if text == good {
			t.Fatalf("%s: nothing was altered", name)
		}
		_, _, err := ParseStatement([]byte(text))
		if err == nil {
			t.Errorf("%s: it was read", name)
			continue
		}
		wantErr(t, err, kms.ErrInvalid)
	}
}

func TestDifferentOperationsHaveDifferentStatements(t *testing.T) {
	seen := make(map[string]int)
	for i, change := range []func(*Request){
		func(*Request) {},
		func(r *Request) { r.Operation.Params = map[string]string{"a": "1\" \"b", "b": "2"} },
		func(r *Request) { r.Operation.Params = map[string]string{"a": "1"} },
		func(r *Request) { r.Operation.Params = nil },
		func(r *Request) { r.Operation.Actor, r.Requester = r.Requester, r.Operation.Actor },
		func(r *Request) { r.Operation.Reason = "" },
		func(r *Request) { r.Expires = r.Expires.Add(time.Second) },
		func(r *Request) { r.Created = r.Created.Add(time.Second) },
	} {
		q := request()
		change(&q)
		for _, v := range []Verdict{Ask, Approve, Reject} {
			text := string(q.Statement(v))
			if other, ok := seen[text]; ok {
				t.Errorf("%d and %d are one", i, other)
			}
			seen[text] = i
		}
	}
}

func FuzzParseStatement(f *testing.F) {
	f.Add(request().Statement(Ask))
	f.Add([]byte(requestDomain + "\nparam \"a\" \"b\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		q, v, err := ParseStatement(text)
		if err == nil && string(q.Statement(v)) != string(text) {
			t.Errorf("%q is read and written differently", text)
		}
	})
}
