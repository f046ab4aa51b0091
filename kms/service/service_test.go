package service

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

func TestNewReportsAllThatIsWrong(t *testing.T) {
	_, err := New(Config{LeaseTTL: time.Millisecond, KeyTTL: time.Microsecond, CallTimeout: -1})
	for _, want := range []string{"no manager", "under a second", "less than a lease", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestAGatewayGetsABucketsKeys(t *testing.T) {
	_, c := local(t, nil)
	ctx, gw := t.Context(), c.Gateway
	made, err := gw.RegisterBucket(ctx, &kmsv1.RegisterBucketRequest{Name: "b", Store: "files", StoreName: "p-b", Owner: "alice"})
	if err != nil || made.GetOutcome() != kmsv1.RegisterBucketResponse_OUTCOME_CREATED || made.GetBucket().GetState() != "creating" {
		t.Fatalf("got %v, %v", made, err)
	}
	for owner, want := range map[string]kmsv1.RegisterBucketResponse_Outcome{
		"alice": kmsv1.RegisterBucketResponse_OUTCOME_OWNED, "bob": kmsv1.RegisterBucketResponse_OUTCOME_TAKEN,
	} {
		got, err := gw.RegisterBucket(ctx, &kmsv1.RegisterBucketRequest{Name: "b", Store: "files", StoreName: "p-b", Owner: owner})
		if err != nil || got.GetOutcome() != want || (got.GetBucket() != nil) != (owner == "alice") {
			t.Errorf("%s: got %v, %v", owner, got, err)
		}
	}
	if _, err := gw.ActivateBucket(ctx, &kmsv1.ActivateBucketRequest{Name: "b"}); err != nil {
		t.Fatal(err)
	}
	space, id := made.GetBucket().GetSpace(), leaseOf(t, c)
	key, err := gw.Current(ctx, &kmsv1.CurrentRequest{LeaseId: id, Space: space})
	if err != nil || len(key.GetKey()) != 32 || len(key.GetKeyId()) != 16 || key.GetMirrored() || key.GetNoCache() {
		t.Fatalf("got %d bytes, %v", len(key.GetKey()), err)
	}
	if ttl := key.GetTtl().AsDuration(); ttl > 300*time.Second || ttl < 290*time.Second {
		t.Errorf("ttl %v, want just under 300 s", ttl)
	}
	if m, err := kms.ParseMirror(key.GetRecord()); err != nil || m.Bucket != "b" {
		t.Errorf("mirror %+v, %v", m, err)
	}
	if _, err := gw.ConfirmMirror(ctx, &kmsv1.ConfirmMirrorRequest{Space: space, KeyId: key.GetKeyId(), Record: key.GetRecord()}); err != nil {
		t.Fatal(err)
	}
	same, err := gw.BucketKey(ctx, &kmsv1.BucketKeyRequest{LeaseId: id, Space: space, KeyId: key.GetKeyId()})
	if err != nil || !bytes.Equal(same.GetKey(), key.GetKey()) || !same.GetMirrored() {
		t.Errorf("mirrored %t, %v", same.GetMirrored(), err)
	}
	if _, err := gw.UnconfirmMirrors(ctx, &kmsv1.UnconfirmMirrorsRequest{Space: space}); err != nil {
		t.Fatal(err)
	}
	list, err := gw.ListBuckets(ctx, &kmsv1.ListBucketsRequest{Owner: "alice"})
	if err != nil || len(list.GetBuckets()) != 1 || list.GetBuckets()[0].GetState() != "active" {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := gw.RemoveBucket(ctx, &kmsv1.RemoveBucketRequest{Name: "b"}); err != nil {
		t.Fatal(err)
	}
	_, err = gw.Bucket(ctx, &kmsv1.BucketRequest{Name: "b"})
	wantErr(t, err, kms.ErrNotFound)
}

func TestKeysOfAStrictBucketAreNotToBeCached(t *testing.T) {
	_, c := local(t, nil)
	made, err := c.Gateway.RegisterBucket(t.Context(), &kmsv1.RegisterBucketRequest{
		Name: "b", Store: "files", StoreName: "b", Owner: "alice", Profile: "strict", Etag: "md5",
	})
	if err != nil || made.GetBucket().GetEtag() != "md5" {
		t.Fatalf("got %v, %v", made, err)
	}
	key, err := c.Gateway.Current(t.Context(), &kmsv1.CurrentRequest{LeaseId: leaseOf(t, c), Space: made.GetBucket().GetSpace()})
	if err != nil || !key.GetNoCache() {
		t.Errorf("no_cache %t, %v", key.GetNoCache(), err)
	}
}

func TestBadArgumentsAreInvalid(t *testing.T) {
	_, c := local(t, nil)
	ctx, gw := t.Context(), c.Gateway
	id := leaseOf(t, c)
	calls := map[string]func() error{
		"no gateway": func() error { _, err := gw.Renew(ctx, &kmsv1.RenewRequest{}); return err },
		"short key id": func() error {
			_, err := gw.BucketKey(ctx, &kmsv1.BucketKeyRequest{LeaseId: id, KeyId: []byte{1}})
			return err
		},
		"short mirror id": func() error {
			_, err := gw.ConfirmMirror(ctx, &kmsv1.ConfirmMirrorRequest{KeyId: []byte{1}})
			return err
		},
		"bad space": func() error {
			_, err := gw.Current(ctx, &kmsv1.CurrentRequest{LeaseId: id, Space: "x"})
			return err
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if _, err := gw.Renew(ctx, &kmsv1.RenewRequest{GatewayId: "gw", LeaseId: strings.Repeat("x", maxRequest+1)}); err == nil {
		t.Error("a request over the limit was read")
	}
}

func TestKeysNeedALease(t *testing.T) {
	_, c := local(t, nil)
	ctx, gw := t.Context(), c.Gateway
	made, err := gw.RegisterBucket(ctx, &kmsv1.RegisterBucketRequest{Name: "b", Store: "files", StoreName: "b", Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	space := made.GetBucket().GetSpace()
	for _, id := range []string{"", "made-up", strings.ToLower(leaseOf(t, c))} {
		_, current := gw.Current(ctx, &kmsv1.CurrentRequest{LeaseId: id, Space: space})
		_, byID := gw.BucketKey(ctx, &kmsv1.BucketKeyRequest{LeaseId: id, Space: space, KeyId: make([]byte, 16)})
		_, signing := gw.SigningKey(ctx, &kmsv1.SigningKeyRequest{LeaseId: id, AccessKeyId: "AKID", Date: today(), Region: "eu", Service: "s3"})
		for _, err := range []error{current, byID, signing} {
			if !errors.Is(err, kms.ErrLease) {
				t.Errorf("lease %q: got %v, want ErrLease", id, err)
			}
		}
	}
}

func TestLeasesRunOutAndBelongToTheirHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases(15*time.Second, 2, NewMetrics())
		renew := func(holder, id string) string {
			got, err := l.renew(asking{holder: holder, id: id})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		a := renew("a", "")
		wantErr(t, l.check("b", a), kms.ErrLease)
		time.Sleep(14 * time.Second)
		if again := renew("a", a); again != a {
			t.Errorf("renewing gave another lease: %q, had %q", again, a)
		}
		time.Sleep(14 * time.Second)
		wantErr(t, l.check("a", a), nil)
		if stolen := renew("b", a); stolen == a {
			t.Error("somebody else's lease was extended")
		}
		_, err := l.renew(asking{holder: "c"})
		wantErr(t, err, kms.ErrUnavailable)
		time.Sleep(time.Second)
		wantErr(t, l.check("a", a), kms.ErrLease)
		if n := l.count(); n != 1 {
			t.Errorf("%d live leases, want 1", n)
		}
		if another := renew("a", a); another == a {
			t.Error("a lease that ran out came back to life")
		}
	})
}

func TestNoLeaseWithoutTheRegistry(t *testing.T) {
	w, c := local(t, nil)
	w.registry.set(kms.ErrUnavailable)
	_, err := c.Gateway.Renew(t.Context(), &kmsv1.RenewRequest{GatewayId: "gw"})
	wantErr(t, err, kms.ErrUnavailable)
	w.registry.set(nil)
	if leaseOf(t, c) == "" {
		t.Error("no lease after the registry came back")
	}
}

func TestAdministration(t *testing.T) {
	w, c := local(t, nil)
	ctx, admin := t.Context(), c.Admin
	if made, err := c.Keys.CreateKEK(ctx, &kmsv1.CreateKEKRequest{Name: "second"}); err != nil || made.GetKek().GetVersions()[0].GetState() != "active" {
		t.Errorf("got %v, %v", made, err)
	}
	_, err := c.Keys.CreateKEK(ctx, &kmsv1.CreateKEKRequest{Name: "second"})
	wantErr(t, err, kms.ErrExists)
	if all, err := c.Keys.ListKEKs(ctx, &kmsv1.ListKEKsRequest{}); err != nil || len(all.GetKeks()) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
	given := &kmsv1.EnsureAccessKeyRequest{Id: "AKID", Secret: "planted-secret", Principal: "alice", Revealable: true}
	for range 2 {
		if _, err := admin.EnsureAccessKey(ctx, given); err != nil {
			t.Fatal(err)
		}
	}
	if shown, err := admin.RevealAccessKey(ctx, &kmsv1.RevealAccessKeyRequest{Id: "AKID"}); err != nil || shown.GetSecret() != "planted-secret" {
		t.Errorf("reveal: %v", err)
	}
	made, err := admin.CreateAccessKey(ctx, &kmsv1.CreateAccessKeyRequest{Principal: "bob"})
	if err != nil || len(made.GetSecret()) != 40 {
		t.Fatalf("create: %v", err)
	}
	_, err = admin.RevealAccessKey(ctx, &kmsv1.RevealAccessKeyRequest{Id: made.GetAccessKey().GetId()})
	wantErr(t, err, kms.ErrDenied)
	signing := &kmsv1.SigningKeyRequest{LeaseId: leaseOf(t, c), AccessKeyId: "AKID", Date: today(), Region: "eu", Service: "s3"}
	if key, err := c.Gateway.SigningKey(ctx, signing); err != nil || len(key.GetKey()) != 32 || key.GetPrincipal() != "alice" {
		t.Errorf("signing key: %v", err)
	}
	if _, err := admin.DisableAccessKey(ctx, &kmsv1.DisableAccessKeyRequest{Id: "AKID"}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Gateway.SigningKey(ctx, signing)
	wantErr(t, err, kms.ErrNotFound)
	if all, err := admin.ListAccessKeys(ctx, &kmsv1.ListAccessKeysRequest{}); err != nil || len(all.GetAccessKeys()) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
	if s, err := admin.Status(ctx, &kmsv1.StatusRequest{}); err != nil || !s.GetReady() || s.GetLeases() != 1 || s.GetRevocationEpoch() != 1 || s.GetVersion() != "test" {
		t.Errorf("got %v, %v", s, err)
	}
	w.registry.set(kms.ErrUnavailable)
	if s, err := admin.Status(ctx, &kmsv1.StatusRequest{}); err != nil || s.GetReady() || s.GetParts()[0].GetProblem() == "" {
		t.Errorf("got %v, %v", s, err)
	}
	if strings.Contains(w.logs.String(), "planted-secret") || strings.Contains(w.logs.String(), made.GetSecret()) {
		t.Error("a secret is in the logs")
	}
}

// answers is a GatewayService whose Bucket does as it is told.
type answers struct {
	kmsv1connect.UnimplementedGatewayServiceHandler
	bucket func(context.Context) error
}

func (a answers) Bucket(ctx context.Context, _ *kmsv1.BucketRequest) (*kmsv1.BucketResponse, error) {
	return nil, a.bucket(ctx)
}

// overTheWire calls a Bucket that does as it is told.
func overTheWire(ctx context.Context, t *testing.T, i *intercept, bucket func(context.Context) error) error {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(kmsv1connect.NewGatewayServiceHandler(answers{bucket: bucket}, connect.WithInterceptors(i)))
	server := httptest.NewServer(mux)
	defer server.Close()
	_, err := NewClients(server.Client(), server.URL).Gateway.Bucket(ctx, &kmsv1.BucketRequest{})
	return err
}

func testIntercept(t *testing.T, timeout time.Duration) *intercept {
	t.Helper()
	return &intercept{timeout: timeout, metrics: NewMetrics(), log: testLogger(&lockedBuffer{})}
}

func TestErrorsKeepTheirSentinelAndText(t *testing.T) {
	sentinels := map[string]error{}
	for _, r := range reasons() {
		if other, ok := sentinels[r.word]; ok {
			t.Errorf("%q is both %v and %v", r.word, other, r.sentinel)
		}
		sentinels[r.word] = r.sentinel
	}
	for word, sentinel := range sentinels {
		err := overTheWire(t.Context(), t, testIntercept(t, time.Minute), func(context.Context) error {
			return fmt.Errorf("kms: doing %q: %w", "this", sentinel)
		})
		if want := fmt.Sprintf("kms: doing %q: %v", "this", sentinel); err == nil || err.Error() != want {
			t.Errorf("%s: got text %v, want %s", word, err, want)
		}
		for other, s := range sentinels {
			if errors.Is(err, s) != (other == word) {
				t.Errorf("%s came out as %s too", word, other)
			}
		}
	}
}

func TestWhatIsNoSentinelStaysUnknown(t *testing.T) {
	err := overTheWire(t.Context(), t, testIntercept(t, time.Minute), func(context.Context) error { return errors.New("broken record") })
	if _, known := reasonOf(err); known || err == nil || connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("got %v", err)
	}
}

func TestACallThatNobodyHereCanceledWasCut(t *testing.T) {
	canceled := func(context.Context) error { return context.Canceled }
	err := overTheWire(t.Context(), t, testIntercept(t, time.Minute), canceled)
	wantErr(t, err, kms.ErrUnavailable)
	broken := NewClients(brokenHTTP{}, "http://kms")
	_, err = broken.Gateway.Bucket(t.Context(), &kmsv1.BucketRequest{})
	wantErr(t, err, kms.ErrUnavailable)
	if errors.Is(err, context.Canceled) {
		t.Errorf("got %v, which says that the caller has gone", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = broken.Gateway.Bucket(ctx, &kmsv1.BucketRequest{}); !errors.Is(err, context.Canceled) || errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("the caller has gone: got %v, want context.Canceled alone", err)
	}
}

// brokenHTTP breaks as transports do whose connection is closed under a call.
type brokenHTTP struct{}

func (brokenHTTP) Do(*http.Request) (*http.Response, error) { return nil, context.Canceled }

func TestCallsHaveADeadline(t *testing.T) {
	err := overTheWire(t.Context(), t, testIntercept(t, 10*time.Millisecond), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	wantErr(t, err, kms.ErrUnavailable)
}

func TestTheCallersOwnCancellationIsNotTheKMSsFault(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := overTheWire(ctx, t, testIntercept(t, time.Minute), func(context.Context) error { cancel(); <-ctx.Done(); return nil })
	wantErr(t, err, context.Canceled)
	if errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("%v counts as unavailable", err)
	}
}

func TestAPanicIsAnswered(t *testing.T) {
	w, c := local(t, nil)
	w.mux = http.NewServeMux()
	w.mux.Handle(kmsv1connect.NewGatewayServiceHandler(answers{bucket: func(context.Context) error { panic("planted") }},
		connect.WithRecover(w.recovered)))
	_, err := c.Gateway.Bucket(t.Context(), &kmsv1.BucketRequest{Name: "b"})
	if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "planted") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(w.logs.String(), "planted") {
		t.Error("the panic is not in the log")
	}
}

func TestAHandlerOnAnUnmarkedConnectionLetsNobodyIn(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Access = Access{Gateways: []string{""}, Admins: []string{""}} })
	server := httptest.NewServer(w)
	defer server.Close()
	c := NewClients(server.Client(), server.URL)
	_, err := c.Gateway.Renew(t.Context(), &kmsv1.RenewRequest{GatewayId: "gw"})
	wantErr(t, err, kms.ErrDenied)
	_, err = c.Admin.Status(t.Context(), &kmsv1.StatusRequest{})
	wantErr(t, err, kms.ErrDenied)
}

func TestMetricsCountCallsAndNameNoBucket(t *testing.T) {
	w, c := local(t, nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.Metrics())
	leaseOf(t, c)
	_, _ = c.Gateway.Bucket(t.Context(), &kmsv1.BucketRequest{Name: "planted-bucket"})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(families)
	for _, want := range []string{
		"chatelaine_kms_rpcs_total", `value:"Renew"`, `value:"not-found"`, "chatelaine_kms_leases", `value:"wrap"`, "chatelaine_kms_provider_call_seconds",
		"chatelaine_registry_size_bytes", `value:"in_use"`, `value:"file"`, "chatelaine_registry_quota_bytes",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(text, "planted-bucket") {
		t.Error("a bucket's name is a label")
	}
}

func TestMessagesWithSecretsDoNotPrint(t *testing.T) {
	secret := []byte("planted-secret-in-a-message")
	messages := []any{
		&kmsv1.BucketKeyResponse{Key: secret}, &kmsv1.SigningKeyResponse{Key: secret},
		&kmsv1.EnsureAccessKeyRequest{Secret: string(secret)}, &kmsv1.CreateAccessKeyResponse{Secret: string(secret)},
		&kmsv1.RevealAccessKeyResponse{Secret: string(secret)},
	}
	for _, m := range messages {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			got := fmt.Sprintf(verb, m)
			for _, form := range []string{string(secret), hex.EncodeToString(secret), fmt.Sprint(secret)} {
				if strings.Contains(got, form) {
					t.Errorf("%s of %T shows the secret", verb, m)
				}
			}
		}
	}
}

func TestReadyIsThatOfTheParts(t *testing.T) {
	w := newWorld(t, nil)
	wantErr(t, w.Ready(t.Context()), nil)
}
