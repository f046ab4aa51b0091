package sigv4

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	clock      = "20260301T120000Z"
	clockScope = exampleKey + "/20260301/us-east-1/s3/aws4_request"
)

func at(s string) time.Time {
	t, err := time.Parse(timeFormat, s)
	if err != nil {
		panic(err)
	}
	return t
}

// signSDK signs with the SDK's own signer, as S3 clients do.
func signSDK(t *testing.T, r *http.Request, hash string, when time.Time) *http.Request {
	t.Helper()
	r.Header.Set("X-Amz-Content-Sha256", hash)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	creds := aws.Credentials{AccessKeyID: exampleKey, SecretAccessKey: exampleSecret}
	if err := signer.SignHTTP(context.Background(), creds, r, hash, "s3", "us-east-1", when); err != nil {
		t.Fatal(err)
	}
	return r
}

// presignSDK signs in the query for an hour.
func presignSDK(t *testing.T, method, target string, when time.Time) *http.Request {
	t.Helper()
	r := request(method, target, "")
	q := r.URL.Query()
	q.Set("X-Amz-Expires", "3600")
	r.URL.RawQuery = q.Encode()
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	creds := aws.Credentials{AccessKeyID: exampleKey, SecretAccessKey: exampleSecret}
	signed, _, err := signer.PresignHTTP(context.Background(), creds, r, unsignedPayload, "s3", "us-east-1", when)
	if err != nil {
		t.Fatal(err)
	}
	return request(method, signed, "")
}

// received makes a request look as a server gets it: nothing but what was sent.
func received(t *testing.T, r *http.Request) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(r.URL.RequestURI())
	if err != nil {
		t.Fatal(err)
	}
	in := r.Clone(t.Context())
	in.URL, in.RequestURI = u, r.URL.RequestURI()
	return in
}

func TestRequestsSignedByTheSDKVerify(t *testing.T) {
	for _, path := range []string{
		"/", "/bucket", "/bucket/key", "/bucket//double", "/bucket/a/../b", "/bucket/./x", "/bucket/a%2Fb", "/bucket/plus+sign",
		"/bucket/with%20space", "/bucket/%E2%82%AC", "/bucket/key%25percent", "/bucket/~tilde", "/bucket/(paren)*!'", "/bucket/trailing/",
		"/bucket?list-type=2&prefix=a%20b&delimiter=%2F", "/bucket?uploads", "/bucket?prefix=&max-keys=2", "/bucket?a=2&a=1&b", "/bucket?x=%2B",
	} {
		t.Run(path, func(t *testing.T) {
			r := received(t, signSDK(t, request("GET", "http://s3.example"+path, ""), emptyHash, at(clock)))
			if _, err := exampleVerifier(clock).Verify(t.Context(), r); err != nil {
				t.Errorf("header: %v", err)
			}
			if _, err := exampleVerifier(clock).Verify(t.Context(), received(t, presignSDK(t, "GET", "http://s3.example"+path, at(clock)))); err != nil {
				t.Errorf("query: %v", err)
			}
		})
	}
}

func TestHeaderValuesAreTrimmedAndJoined(t *testing.T) {
	r := request("PUT", "http://s3.example/b/k", "", "X-Amz-Meta-A:  two   spaces ", "X-Amz-Meta-B:one", "X-Amz-Meta-B:two", "X-Amz-Meta-C:")
	if _, err := exampleVerifier(clock).Verify(t.Context(), received(t, signSDK(t, r, emptyHash, at(clock)))); err != nil {
		t.Error(err)
	}
}

// signed is a good request that a test spoils.
func signed(t *testing.T) *http.Request {
	return received(t, signSDK(t, request("PUT", "http://s3.example/b/k?x-id=PutObject", "body", "X-Amz-Acl:private"), unsignedPayload, at(clock)))
}

func replaceAuth(old, with string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, with, 1))
	}
}

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func TestSpoiledRequestsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*http.Request)
		want  error
		got   string // Error.Got
	}{
		{"another method", func(r *http.Request) { r.Method = "GET" }, ErrSignature, exampleKey},
		{"another path", func(r *http.Request) { r.URL.Path = "/b/other" }, ErrSignature, exampleKey},
		{"another query", func(r *http.Request) { r.URL.RawQuery = "x-id=GetObject" }, ErrSignature, exampleKey},
		{"another parameter", func(r *http.Request) { r.URL.RawQuery += "&acl" }, ErrSignature, exampleKey},
		{"another host", func(r *http.Request) { r.Host = "evil.example" }, ErrSignature, exampleKey},
		{"another signed header", set("X-Amz-Acl", "public-read"), ErrSignature, exampleKey},
		{"a signed header removed", func(r *http.Request) { r.Header.Del("X-Amz-Acl") }, ErrSignature, exampleKey},
		{"another body mode", set("X-Amz-Content-Sha256", emptyHash), ErrSignature, exampleKey},
		{"another time", set("X-Amz-Date", "20260301T120001Z"), ErrSignature, exampleKey},
		{"another signature", replaceAuth("Signature=", "Signature=0"), ErrSignature, exampleKey},
		{"an unsigned header", set("X-Amz-Tagging", "a=b"), ErrUnsignedHeaders, "x-amz-tagging"},
		{"two unsigned headers", func(r *http.Request) {
			r.Header.Set("X-Amz-Tagging", "a=b")
			r.Header.Set("X-Amz-Copy-Source", "b/k")
		}, ErrUnsignedHeaders, "x-amz-copy-source, x-amz-tagging"},
		{"host not signed", replaceAuth("host;", ""), ErrUnsignedHeaders, "host"},
		{"no content hash", func(r *http.Request) { r.Header.Del("X-Amz-Content-Sha256") }, ErrNoContentHash, ""},
		{"a bad content hash", set("X-Amz-Content-Sha256", "invalid_sha256"), ErrContentHash, "invalid_sha256"},
		{"a bad content hash of the right length", set("X-Amz-Content-Sha256", strings.Repeat("g", 64)), ErrContentHash, strings.Repeat("g", 64)},
		{"SigV4A chunks", set("X-Amz-Content-Sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), ErrAsymmetric, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"},
		{"no authorization", func(r *http.Request) { r.Header.Del("Authorization") }, ErrAnonymous, ""},
		{"two authorizations", func(r *http.Request) { r.Header.Add("Authorization", "x") }, ErrDuplicate, "Authorization"},
		{"two dates", func(r *http.Request) { r.Header.Add("X-Amz-Date", clock) }, ErrDuplicate, "X-Amz-Date"},
		{"header and query", func(r *http.Request) { r.URL.RawQuery += "&X-Amz-Algorithm=AWS4-HMAC-SHA256" }, ErrTwoSignatures, ""},
		{"a session token", set("X-Amz-Security-Token", "token"), ErrToken, ""},
		{"no scheme", set("Authorization", "invalid_header"), ErrHeaderForm, "invalid_header"},
		{"version 2", set("Authorization", "AWS key:signature"), ErrVersion2, ""},
		{"SigV4A", replaceAuth("AWS4-HMAC-SHA256", algorithmECDSA), ErrAsymmetric, algorithmECDSA},
		{"another scheme", replaceAuth("AWS4-HMAC-SHA256", "Bearer"), ErrScheme, "Bearer"},
		{"two components", set("Authorization", algorithm+" Credential="+clockScope+",Signature=x"), ErrComponents, ""},
		{"a component without value", replaceAuth("SignedHeaders=", "SignedHeaders-"), ErrComponent, ""},
		{"no Credential", replaceAuth("Credential=", "Other="), ErrNoCredential, ""},
		{"no SignedHeaders", replaceAuth("SignedHeaders=", "Other="), ErrNoSignedHeaders, ""},
		{"no Signature", replaceAuth("Signature=", "Other="), ErrNoSignature, ""},
		{"six parts", replaceAuth(clockScope, clockScope+"/more"), ErrCredential, ""},
		{"another terminator", replaceAuth("aws4_request", "aws5_request"), ErrTerminator, "aws5_request"},
		{"another service", replaceAuth("/s3/", "/ec2/"), ErrService, "ec2"},
		{"another region", replaceAuth("us-east-1", "eu-west-1"), ErrRegion, "eu-west-1"},
		{"no date in the credential", replaceAuth("/20260301/", "/3223423234/"), ErrScopeDate, "3223423234"},
		{"another date in the credential", replaceAuth("/20260301/", "/20260302/"), ErrDateMismatch, "20260302"},
		{"no date", func(r *http.Request) { r.Header.Del("X-Amz-Date") }, ErrNoDate, ""},
		{"an empty date", set("X-Amz-Date", ""), ErrNoDate, ""},
		{"a bad date", set("X-Amz-Date", "03032006"), ErrNoDate, ""},
		{"an unknown key", replaceAuth(exampleKey, "AKIAUNKNOWN"), ErrUnknownKey, "AKIAUNKNOWN"},
		{"a bad query", func(r *http.Request) { r.URL.RawQuery = "a=%zz" }, ErrQuery, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := signed(t)
			if _, err := exampleVerifier(clock).Verify(t.Context(), r); err != nil {
				t.Fatalf("before: %v", err)
			}
			tt.spoil(r)
			_, err := exampleVerifier(clock).Verify(t.Context(), r)
			checkRefusal(t, err, tt.want, tt.got)
		})
	}
}

func checkRefusal(t *testing.T, err, want error, got string) {
	t.Helper()
	var e *Error
	if !errors.Is(err, want) || !errors.As(err, &e) {
		t.Fatalf("got %v, want %v", err, want)
	}
	if got != "" && e.Got != got {
		t.Errorf("quoted %q, want %q", e.Got, got)
	}
}

// parameter changes one parameter of a presigned request.
func parameter(name, value string) func(url.Values) {
	return func(q url.Values) {
		if value == "" {
			q.Del(name)
			return
		}
		q.Set(name, value)
	}
}

func credential(old, with string) func(url.Values) {
	return func(q url.Values) {
		q.Set("X-Amz-Credential", strings.Replace(q.Get("X-Amz-Credential"), old, with, 1))
	}
}

func TestSpoiledPresignedRequestsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(url.Values)
		want  error
	}{
		{"another parameter", parameter("acl", "x"), ErrSignature},
		{"a longer life", parameter("X-Amz-Expires", "7200"), ErrSignature},
		{"another signature", parameter("X-Amz-Signature", strings.Repeat("0", 64)), ErrSignature},
		{"another algorithm", parameter("X-Amz-Algorithm", "AWS4-SHA256"), ErrScheme},
		{"SigV4A", parameter("X-Amz-Algorithm", algorithmECDSA), ErrAsymmetric},
		{"a session token", parameter("X-Amz-Security-Token", "t"), ErrToken},
		{"no algorithm", parameter("X-Amz-Algorithm", ""), ErrComponents},
		{"no credential", parameter("X-Amz-Credential", ""), ErrComponents},
		{"no signature", parameter("X-Amz-Signature", ""), ErrComponents},
		{"no date", parameter("X-Amz-Date", ""), ErrComponents},
		{"no signed headers", parameter("X-Amz-SignedHeaders", ""), ErrComponents},
		{"no expiry", parameter("X-Amz-Expires", ""), ErrComponents},
		{"a bad credential", parameter("X-Amz-Credential", "access/hello/world"), ErrCredential},
		{"another terminator", credential("aws4_request", "aws5_request"), ErrTerminator},
		{"another service", credential("/s3/", "/sns/"), ErrService},
		{"another region", credential("us-east-1", "us-west-1"), ErrRegion},
		{"a bad date in the credential", credential("/20260301/", "/32234Z34/"), ErrScopeDate},
		{"another date in the credential", credential("/20260301/", "/20060102/"), ErrDateMismatch},
		{"an unknown key", credential(exampleKey, "AKIAUNKNOWN"), ErrUnknownKey},
		{"a bad date", parameter("X-Amz-Date", "yesterday"), ErrNoDate},
		{"an expiry that is no number", parameter("X-Amz-Expires", "soon"), ErrExpiresNumber},
		{"a negative expiry", parameter("X-Amz-Expires", "-3"), ErrExpiresNegative},
		{"an expiry above a week", parameter("X-Amz-Expires", "604801"), ErrExpiresTooLarge},
		{"a repeated parameter", func(q url.Values) { q.Add("X-Amz-Date", clock) }, ErrDuplicate},
		{"version 2", func(q url.Values) {
			for name := range q {
				q.Del(name)
			}
			q.Set("AWSAccessKeyId", exampleKey)
		}, ErrVersion2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := received(t, presignSDK(t, "GET", "http://s3.example/b/k", at(clock)))
			q := r.URL.Query()
			tt.spoil(q)
			r.URL.RawQuery = q.Encode()
			_, err := exampleVerifier(clock).Verify(t.Context(), r)
			checkRefusal(t, err, tt.want, "")
			var e *Error
			if errors.As(err, &e); !e.Query && !errors.Is(err, ErrSignature) && !errors.Is(err, ErrUnknownKey) {
				t.Errorf("the error does not say that it is about the query")
			}
		})
	}
}

func TestTimeLimitsHoldOnBothSides(t *testing.T) {
	header := signSDK(t, request("GET", "http://s3.example/b/k", ""), emptyHash, at(clock))
	presigned := presignSDK(t, "GET", "http://s3.example/b/k", at(clock))
	for _, tt := range []struct {
		name string
		r    *http.Request
		off  time.Duration // the verifier's clock after the request's time
		want error
	}{
		{"header on time", header, 0, nil},
		{"header just old enough", header, MaxSkew, nil},
		{"header too old", header, MaxSkew + time.Second, ErrSkew},
		{"header just early enough", header, -MaxSkew, nil},
		{"header too early", header, -MaxSkew - time.Second, ErrSkew},
		{"presigned in its last second", presigned, time.Hour, nil},
		{"presigned after it", presigned, time.Hour + time.Second, ErrExpired},
		{"presigned just early enough", presigned, -MaxSkew, nil},
		{"presigned too early", presigned, -MaxSkew - time.Second, ErrNotYet},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := exampleVerifier(clock)
			v.Now = func() time.Time { return at(clock).Add(tt.off) }
			if _, err := v.Verify(t.Context(), received(t, tt.r)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestErrorsOfLookupComeThrough(t *testing.T) {
	down := errors.New("kms is away")
	v := exampleVerifier(clock)
	v.Lookup = func(context.Context, Scope) (Key, error) { return nil, down }
	_, err := v.Verify(t.Context(), signed(t))
	if !errors.Is(err, down) || errors.Is(err, ErrUnknownKey) {
		t.Errorf("got %v, want %v", err, down)
	}
}

func TestNoKeyIsLookedUpForARequestThatCannotBeRight(t *testing.T) {
	v := exampleVerifier(clock)
	v.Lookup = func(context.Context, Scope) (Key, error) { t.Error("looked up"); return nil, ErrUnknownKey }
	for _, spoil := range []func(*http.Request){
		replaceAuth("us-east-1", "eu-west-1"), replaceAuth("/20260301/", "/20250301/"), set("X-Amz-Date", "20260301T110000Z"), set("X-Amz-Tagging", "a=b"),
	} {
		r := signed(t)
		spoil(r)
		if _, err := v.Verify(t.Context(), r); err == nil {
			t.Error("accepted")
		}
	}
}

// Authentication comes first: a client that waits for 100 Continue must not have
// sent its body by then.
func TestVerifyDoesNotReadTheBody(t *testing.T) {
	r := signed(t)
	r.Body = io.NopCloser(readerFunc(func([]byte) (int, error) { t.Error("read"); return 0, io.EOF }))
	if _, err := exampleVerifier(clock).Verify(t.Context(), r); err != nil {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestAnEmptyBodyWithAnotherHashIsRefusedAtOnce(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	r := received(t, signSDK(t, request("GET", "http://s3.example/b/k", ""), hash, at(clock)))
	_, err := exampleVerifier(clock).Verify(t.Context(), r)
	checkRefusal(t, err, ErrBodyHash, hash)
}

func TestDateIsTakenWhereThereIsNoAmzDate(t *testing.T) {
	r := request("GET", "http://s3.example/b/k", "", "X-Amz-Content-Sha256:"+emptyHash, "Date:Sun, 01 Mar 2026 12:00:00 GMT")
	c := &claim{scope: Scope{exampleKey, "20260301", "us-east-1", "s3"}, signedHeaders: []string{"date", "host", "x-amz-content-sha256"}, timestamp: clock}
	key, _ := lookupExample(t.Context(), c.scope)
	r.Header.Set("Authorization", algorithm+" Credential="+clockScope+",SignedHeaders=date;host;x-amz-content-sha256,Signature="+signClaim(key, r, c, "/b/k", emptyHash))
	if _, err := exampleVerifier(clock).Verify(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// signClaim signs what a claim says, by the path given.
func signClaim(key Key, r *http.Request, c *claim, path, payload string) string {
	sum := sum256(canonicalRequest(r, c, path, payload))
	sig := sign(key, []byte(algorithm+"\n"+c.timestamp+"\n"+c.scope.credential()+"\n"+hex.EncodeToString(sum)))
	return string(sig[:])
}

// Some clients sign the path as they send it, where AWS would write it otherwise.
func TestAPathMayBeSignedAsItWasSent(t *testing.T) {
	for _, path := range []string{"/b/a+b", "/b/%2f", "/b/a%2Fb", "/b/(x)", "/b/%7Etilde"} {
		r := request("GET", "http://s3.example"+path, "", "X-Amz-Content-Sha256:"+emptyHash, "X-Amz-Date:"+clock)
		c := &claim{scope: Scope{exampleKey, "20260301", "us-east-1", "s3"}, signedHeaders: []string{"host"}, timestamp: clock}
		key, _ := lookupExample(t.Context(), c.scope)
		auth := algorithm + " Credential=" + clockScope + ",SignedHeaders=host,Signature="
		r.Header.Set("Authorization", auth+signClaim(key, r, c, path, emptyHash))
		if _, err := exampleVerifier(clock).Verify(t.Context(), r); err != nil {
			t.Errorf("%s as sent: %v", path, err)
		}
		r.Header.Set("Authorization", auth+signClaim(key, r, c, canonicalPath(path), emptyHash))
		if _, err := exampleVerifier(clock).Verify(t.Context(), r); err != nil {
			t.Errorf("%s as AWS writes it: %v", path, err)
		}
		r.Header.Set("Authorization", auth+signClaim(key, r, c, path+"x", emptyHash))
		if _, err := exampleVerifier(clock).Verify(t.Context(), r); !errors.Is(err, ErrSignature) {
			t.Errorf("%s signed as another path: got %v", path, err)
		}
	}
}

// fixedKey is a signing key that is given as it is.
type fixedKey [32]byte

func (k *fixedKey) Use(f func([]byte)) { f(k[:]) }

func TestEitherOfTwoLiveSecretsVerifies(t *testing.T) {
	other, another := &fixedKey{1}, &fixedKey{2}
	for name, test := range map[string]struct {
		pair func(right Key) Key
		want error
	}{
		"new":     {func(right Key) Key { return Either{New: right, Old: other} }, nil},
		"old":     {func(right Key) Key { return Either{New: other, Old: right} }, nil},
		"neither": {func(Key) Key { return Either{New: other, Old: another} }, ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			v := exampleVerifier(clock)
			var right Key
			v.Lookup = func(ctx context.Context, s Scope) (key Key, err error) {
				right, err = lookupExample(ctx, s)
				return test.pair(right), err
			}
			s, err := v.Verify(t.Context(), signed(t))
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err == nil && s.Key != right {
				t.Errorf("the key is %T, not the one that verified it", s.Key)
			}
		})
	}
}
