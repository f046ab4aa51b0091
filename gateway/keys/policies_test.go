package keys

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

func (w *world) putPolicies(t *testing.T, text string) {
	t.Helper()
	if _, err := w.kms.PutPolicies(t.Context(), kms.PolicyDocument{Policies: []byte(text)}, kms.Change{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) held(t *testing.T) *Policies {
	t.Helper()
	p, err := w.Policies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPoliciesAreAskedForOnceUntilSomethingIsRevoked(t *testing.T) {
	w := newStillWorld(t, Config{})
	first := w.held(t)
	if first.Version != 0 || len(first.Document.Policies) == 0 {
		t.Errorf("the default: got %+v", first)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if p, err := w.Policies(t.Context()); err != nil || p != first {
				t.Errorf("got %p, %v, want %p", p, err, first)
			}
		})
	}
	wg.Wait()
	if n := w.network.count("Policies"); n != 1 {
		t.Errorf("the KMS was asked %d times, want once", n)
	}
	w.putPolicies(t, "new")
	if w.held(t) != first {
		t.Error("policies changed before the lease was renewed")
	}
	if err := w.lease.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := w.held(t)
	if second.Version != 1 || string(second.Document.Policies) != "new" {
		t.Errorf("got %+v, want version 1", second)
	}
	// Another revocation, of something else: the text is not sent again.
	if err := w.kms.DisableAccessKey(t.Context(), accessKeyID, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	if err := w.lease.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.held(t) != second {
		t.Error("the same policies are another pointer")
	}
	if n := w.network.count("Policies"); n != 3 {
		t.Errorf("the KMS was asked %d times, want 3", n)
	}
}

func TestThereAreNoPoliciesWithoutALease(t *testing.T) {
	w := newStillWorld(t, Config{})
	w.network.down.Store(true)
	_, err := w.Policies(t.Context())
	wantErr(t, err, ErrUnavailable)
	w.network.down.Store(false)
	w.lease.failure.Store(nil)
	w.held(t)
	// They end with the lease, however good the copy is.
	old := *w.lease.held.Load()
	old.until = w.clock.now() - 1
	w.lease.held.Store(&old)
	w.network.down.Store(true)
	_, err = w.Policies(t.Context())
	wantErr(t, err, ErrUnavailable)
}

func TestWhileChangedPoliciesCannotBeHadThereAreNone(t *testing.T) {
	w := newStillWorld(t, Config{})
	w.held(t)
	w.putPolicies(t, "new")
	if err := w.lease.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.network.down.Store(true)
	_, err := w.Policies(t.Context())
	wantErr(t, err, ErrUnavailable)
	w.network.down.Store(false)
	if p := w.held(t); p.Version != 1 {
		t.Errorf("got version %d, want 1", p.Version)
	}
}

func TestPoliciesThatAreNotUnderstoodAreNotUsed(t *testing.T) {
	w := newStillWorld(t, Config{})
	says(w, "Policies", func(m *kmsv1.PoliciesResponse) { m.Version.Digest = "other" })
	_, err := w.Policies(t.Context())
	wantErr(t, err, kms.ErrCorrupt)
}

func TestPoliciesOfBeforeARevocationAreAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		wantErr(t, w.Ready(t.Context()), nil)
		w.network.delay.Store(int64(time.Second))
		done := make(chan error)
		go func() { _, err := w.Policies(t.Context()); done <- err }()
		time.Sleep(500 * time.Millisecond)
		w.askAgain()
		wantErr(t, <-done, nil)
		if n := w.network.count("Policies"); n != 2 {
			t.Errorf("%d calls, want the first and another", n)
		}
	})
}

func TestPoliciesSurviveTheRestartOfTheKMS(t *testing.T) {
	w := newStillWorld(t, Config{})
	w.putPolicies(t, "text")
	first := w.held(t)
	w.restartKMS(t, zap.NewNop())
	w.askAgain() // as after a revocation of something else
	if w.held(t) != first {
		t.Error("the same policies are another pointer")
	}
}

func TestPoliciesThatAreNotWhatTheirDigestSaysAreRefused(t *testing.T) {
	doc := &kmsv1.PolicyDocument{Policies: []byte("text")}
	digest := kms.PolicyDocument{Policies: []byte("text")}.Digest()
	held := &heldPolicies{digest: digest, policies: &Policies{Version: 1, Document: kms.PolicyDocument{Policies: []byte("text")}}}
	version := func(n uint64, digest string) *kmsv1.PolicyVersion {
		return &kmsv1.PolicyVersion{Version: n, Digest: digest}
	}
	for name, tt := range map[string]struct {
		held   *heldPolicies
		answer *kmsv1.PoliciesResponse
		want   error
	}{
		"the text":                       {&heldPolicies{}, &kmsv1.PoliciesResponse{Version: version(1, digest), Document: doc}, nil},
		"another text":                   {&heldPolicies{}, &kmsv1.PoliciesResponse{Version: version(1, "other"), Document: doc}, kms.ErrCorrupt},
		"no text and none is here":       {&heldPolicies{}, &kmsv1.PoliciesResponse{Version: version(1, digest)}, kms.ErrCorrupt},
		"no text and no digest":          {&heldPolicies{}, &kmsv1.PoliciesResponse{Version: version(1, "")}, kms.ErrCorrupt},
		"no text and it is here":         {held, &kmsv1.PoliciesResponse{Version: version(1, digest)}, nil},
		"no text and another is here":    {held, &kmsv1.PoliciesResponse{Version: version(2, "other")}, kms.ErrCorrupt},
		"the same text as a new version": {held, &kmsv1.PoliciesResponse{Version: version(3, digest)}, nil},
	} {
		got, err := tt.held.next(tt.answer)
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if err == nil && got.policies.Version != tt.answer.GetVersion().GetVersion() {
			t.Errorf("%s: got version %d", name, got.policies.Version)
		}
	}
}
