package sigv4

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

// The example of the S3 API Reference, "Examples: Browser-Based Upload using HTTP
// POST (Using AWS Signature Version 4)".
const (
	examplePolicy = "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoiLA0KICAiY29uZGl0aW9ucyI6IFsNCiAgICB7ImJ1Y2tldCI6ICJzaWd2NGV4YW1wbGVidWNrZXQifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRrZXkiLCAidXNlci91c2VyMS8iXSwNCiAgICB7ImFjbCI6ICJwdWJsaWMtcmVhZCJ9LA0KICAgIHsic3VjY2Vzc19hY3Rpb25fcmVkaXJlY3QiOiAiaHR0cDovL3NpZ3Y0ZXhhbXBsZWJ1Y2tldC5zMy5hbWF6b25hd3MuY29tL3N1Y2Nlc3NmdWxfdXBsb2FkLmh0bWwifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRDb250ZW50LVR5cGUiLCAiaW1hZ2UvIl0sDQogICAgeyJ4LWFtei1tZXRhLXV1aWQiOiAiMTQzNjUxMjM2NTEyNzQifSwNCiAgICB7IngtYW16LXNlcnZlci1zaWRlLWVuY3J5cHRpb24iOiAiQUVTMjU2In0sDQogICAgWyJzdGFydHMtd2l0aCIsICIkeC1hbXotbWV0YS10YWciLCAiIl0sDQoNCiAgICB7IngtYW16LWNyZWRlbnRpYWwiOiAiQUtJQUlPU0ZPRE5ON0VYQU1QTEUvMjAxNTEyMjkvdXMtZWFzdC0xL3MzL2F3czRfcmVxdWVzdCJ9LA0KICAgIHsieC1hbXotYWxnb3JpdGhtIjogIkFXUzQtSE1BQy1TSEEyNTYifSwNCiAgICB7IngtYW16LWRhdGUiOiAiMjAxNTEyMjlUMDAwMDAwWiIgfQ0KICBdDQp9"
	exampleMAC    = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"
)

func exampleForm() Form {
	return Form{
		"policy": examplePolicy, "x-amz-signature": exampleMAC, "x-amz-algorithm": algorithm, "x-amz-date": "20151229T000000Z",
		"x-amz-credential": exampleKey + "/20151229/us-east-1/s3/aws4_request",
		"bucket":           "sigv4examplebucket", "key": "user/user1/x.jpg", "acl": "public-read", "content-type": "image/jpeg", "x-amz-meta-uuid": "14365123651274",
		"x-amz-server-side-encryption": "AES256", "x-amz-meta-tag": "", "success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html",
	}
}

func TestThePublishedFormVerifies(t *testing.T) {
	v := exampleVerifier("20151229T060000Z")
	s, p, err := v.VerifyForm(t.Context(), exampleForm())
	if err != nil {
		t.Fatal(err)
	}
	if s.Scope.AccessKey != exampleKey {
		t.Errorf("got key %q", s.Scope.AccessKey)
	}
	if err := p.Check(exampleForm(), v.Now()); err != nil {
		t.Error(err)
	}
}

func TestSpoiledFormsAreRefused(t *testing.T) {
	field := func(name, value string) func(Form) { return func(f Form) { f[name] = value } }
	without := func(name string) func(Form) { return func(f Form) { delete(f, name) } }
	for _, tt := range []struct {
		name  string
		spoil func(Form)
		at    string
		want  error
	}{
		{"another policy", field("policy", examplePolicy[:len(examplePolicy)-4]), "", ErrSignature},
		{"another signature", field("x-amz-signature", strings.Repeat("0", 64)), "", ErrSignature},
		{"an empty signature", field("x-amz-signature", ""), "", ErrSignature},
		{"no signature", without("x-amz-signature"), "", ErrField},
		{"no policy", without("policy"), "", ErrField},
		{"no date", without("x-amz-date"), "", ErrField},
		{"no algorithm", without("x-amz-algorithm"), "", ErrField},
		{"no credential", without("x-amz-credential"), "", ErrField},
		{"nothing", func(f Form) { clear(f) }, "", ErrAnonymous},
		{"version 2", func(f Form) { clear(f); f["awsaccesskeyid"] = "x" }, "", ErrVersion2},
		{"a token", field("x-amz-security-token", "x"), "", ErrToken},
		{"another algorithm", field("x-amz-algorithm", algorithmECDSA), "", ErrAsymmetric},
		{"a date that is none", field("x-amz-date", "x"), "", ErrNoDate},
		{"another date", field("x-amz-date", "20151230T000000Z"), "", ErrDateMismatch},
		{"a credential that is none", field("x-amz-credential", "x"), "", ErrCredential},
		{"another region", field("x-amz-credential", exampleKey+"/20151229/mars/s3/aws4_request"), "", ErrRegion},
		{"another service", field("x-amz-credential", exampleKey+"/20151229/us-east-1/ec2/aws4_request"), "", ErrService},
		{"another end", field("x-amz-credential", exampleKey+"/20151229/us-east-1/s3/aws5"), "", ErrTerminator},
		{"an unknown key", field("x-amz-credential", "NOBODY/20151229/us-east-1/s3/aws4_request"), "", ErrUnknownKey},
		{"a week and a day later", func(Form) {}, "20160106T000000Z", ErrPolicyExpired},
		{"before its date", func(Form) {}, "20151228T230000Z", ErrPolicyExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := exampleForm()
			tt.spoil(f)
			if tt.at == "" {
				tt.at = "20151229T060000Z"
			}
			if _, _, err := exampleVerifier(tt.at).VerifyForm(t.Context(), f); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func inBase64(policy string) string { return base64.StdEncoding.EncodeToString([]byte(policy)) }

func policyOf(conditions string) string {
	return inBase64(`{"expiration":"2030-01-01T00:00:00Z","conditions":[` + conditions + `]}`)
}

func TestPoliciesAreHeldAgainstForms(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, conditions string
		form             Form
		want             error
		got              string
	}{
		{"nothing", ``, Form{}, nil, ""},
		{"equal", `["eq","$key","a"]`, Form{"key": "a"}, nil, ""},
		{"equal, as an object", `{"key":"a"}`, Form{"key": "a"}, nil, ""},
		{"in any case", `{"KEY":"a"}, ["EQ","$Key","a"]`, Form{"key": "a"}, nil, ""},
		{"not equal", `["eq","$key","a"]`, Form{"key": "b"}, ErrCondition, `["eq","$key","a"]`},
		{"not equal, as an object", `{"key":"a"}`, Form{"key": "b"}, ErrCondition, `["eq", "$key", "a"]`},
		{"no such field", `{"key":"a"}`, Form{}, ErrCondition, `["eq", "$key", "a"]`},
		{"an empty value is a value", `{"key":""}`, Form{}, ErrCondition, `["eq", "$key", ""]`},
		{"begins with", `["starts-with","$key","a/"]`, Form{"key": "a/b"}, nil, ""},
		{"begins with anything", `["starts-with","$key",""]`, Form{"key": ""}, nil, ""},
		{"begins with something else", `["starts-with","$key","a/"]`, Form{"key": "b/a/"}, ErrCondition, `["starts-with","$key","a/"]`},
		{"types", `["starts-with","$content-type","text/"]`, Form{"content-type": "text/a, text/b"}, nil, ""},
		{"one type of another kind", `["starts-with","$content-type","text/"]`, Form{"content-type": "text/a, x/b"}, ErrCondition, `["starts-with","$content-type","text/"]`},
		{"both must hold", `{"key":"a"},{"key":"b"}`, Form{"key": "a"}, ErrCondition, `["eq", "$key", "b"]`},
		{"not covered", `{"key":"a"}`, Form{"key": "a", "acl": "private"}, ErrExtraField, "acl"},
		{"exempt", ``, Form{"policy": "x", "x-amz-signature": "x", "x-ignore-a": "x", "file": "x"}, nil, ""},
		{"a range covers nothing", `["content-length-range",0,1]`, Form{"content-length-range": "x"}, ErrExtraField, "content-length-range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParsePolicy(policyOf(tt.conditions))
			if err != nil {
				t.Fatal(err)
			}
			err = p.Check(tt.form, now)
			var e *Error
			if !errors.Is(err, tt.want) || tt.want != nil && (!errors.As(err, &e) || e.Got != tt.got) {
				t.Errorf("got %v %+v, want %v %s", err, e, tt.want, tt.got)
			}
			if err := p.Check(tt.form, now.AddDate(10, 0, 0)); !errors.Is(err, ErrPolicyExpired) {
				t.Errorf("ten years on: got %v", err)
			}
		})
	}
}

func TestLengthsOfPolicies(t *testing.T) {
	for conditions, want := range map[string][2]int64{
		``: {0, -1}, `["content-length-range",1,2]`: {1, 2}, `["content-length-range","1","2"]`: {1, 2}, `["content-length-range",0,-1]`: {0, 0},
		`["content-length-range",1,9],["content-length-range",3,20]`: {3, 9},
	} {
		p, err := ParsePolicy(policyOf(conditions))
		if err != nil || [2]int64{p.Min, p.Max} != want {
			t.Errorf("%s: got %+v and %v, want %v", conditions, p, err, want)
		}
	}
}

func TestPoliciesThatCannotBeRead(t *testing.T) {
	for _, tt := range []struct{ name, policy, want string }{
		{"empty", "", "Expecting '{' but found End-of-Input"},
		{"no base64", "?", "invalid Base64 encoding."},
		{"no JSON", inBase64("x"), "Invalid JSON."},
		{"no expiration", inBase64(`{"conditions":[]}`), "Policy missing expiration."},
		{"no conditions", inBase64(`{"expiration":"2030-01-01T00:00:00Z"}`), "Policy missing conditions."},
		{"a number as expiration", inBase64(`{"expiration":1,"conditions":[]}`), "Invalid JSON."},
		{"no date", inBase64(`{"expiration":"x","conditions":[]}`), "Invalid 'expiration' value: 'x'"},
		{"another field", inBase64(`{"expiration":"2030-01-01T00:00:00Z","conditions":[],"x":1}`), `Unexpected: "x"`},
		{"conditions that are no list", inBase64(`{"expiration":"2030-01-01T00:00:00Z","conditions":1}`), "Invalid 'conditions' value: must be a List."},
		{"null", inBase64(`{"expiration":"2030-01-01T00:00:00Z","conditions":null}`), "Invalid 'conditions' value: must be a List."},
		{"a condition that is none", policyOf(`1`), "Invalid condition test: must be a List or Object."},
		{"no test", policyOf(`[]`), "Invalid Condition: missing operation identifier."},
		{"an unknown test", policyOf(`["like","$key","a"]`), "Invalid Condition: unknown operation 'like'."},
		{"four arguments", policyOf(`["eq","$key","a","b"]`), "Invalid eq: wrong number of arguments."},
		{"a number", policyOf(`["eq","$key",1]`), "Invalid JSON."},
		{"no number", policyOf(`["content-length-range",1,"x"]`), "Invalid JSON."},
		{"two properties", policyOf(`{"a":"b","c":"d"}`), "Invalid Simple-Condition: Simple-Conditions must have exactly one property specified."},
		{"no string", policyOf(`{"a":1}`), "Invalid Simple-Condition: value must be a string."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParsePolicy(tt.policy)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrPolicy) || e.Got != tt.want {
				t.Errorf("got %v %+v, want %s", err, e, tt.want)
			}
		})
	}
	if _, err := ParsePolicy(policyOf(`["eq","key","a"]`)); !errors.Is(err, ErrCondition) {
		t.Errorf("a field without its sign: got %v", err)
	}
}

// FuzzPolicy checks that a policy that holds for a form covers all of its fields.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"expiration":"2030-01-01T00:00:00Z","conditions":[{"key":"a"},["starts-with","$acl",""],["content-length-range",1,2]]}`), "acl", "x")
	f.Add([]byte(`{"expiration":"2030-01-01T00:00:00Z","conditions":[[]]}`), "key", "a")
	f.Fuzz(func(t *testing.T, document []byte, name, value string) {
		p, err := ParsePolicy(inBase64(string(document)))
		if err != nil {
			return
		}
		name = strings.ToLower(name)
		if p.Check(Form{name: value}, time.Time{}) == nil && !exempt(name) && !p.covers(name) {
			t.Errorf("%s covers %q", document, name)
		}
	})
}
