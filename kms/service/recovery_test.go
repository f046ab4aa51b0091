package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// mirrored is a key of a bucket in a KMS, with its mirror.
func mirrored(t *testing.T, w *world) (kms.Bucket, kms.OpenKey) {
	t.Helper()
	b, err := w.manager.RegisterBucket(t.Context(), kms.NewBucket{Name: "photos", Store: "files", StoreName: "p", Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := w.manager.CurrentKey(t.Context(), b.Space)
	if err != nil {
		t.Fatal(err)
	}
	return b, key
}

// recovered sends what `chatelaine recover` does for one bucket.
func recovered(ctx context.Context, w *world, o *kmsv1.RecoverOptions, mirror *kmsv1.RecoverMirror) (kms.RecoveryReport, error) {
	a := &recoveryAPI{manager: w.manager}
	bucket := &kmsv1.RecoverBucket{Name: "photos", Store: "files", StoreName: "p", Owner: "alice"}
	var r *kms.Recovery
	for _, message := range []*kmsv1.RecoverRequest{
		{What: &kmsv1.RecoverRequest_Options{Options: o}},
		{What: &kmsv1.RecoverRequest_Bucket{Bucket: bucket}},
		{What: &kmsv1.RecoverRequest_Mirror{Mirror: mirror}},
	} {
		var err error
		if r, err = a.recoverNext(ctx, r, message); err != nil {
			return kms.RecoveryReport{}, err
		}
	}
	return r.Finish(ctx)
}

func TestAnOpenedKeyIsWrappedAnewAndOthersAreProvedByTheHSM(t *testing.T) {
	b, key := mirrored(t, newWorld(t, nil))
	mirror := &kmsv1.RecoverMirror{Name: key.ID.String(), Record: key.Record}
	w := newWorld(t, nil) // with keys of its own
	report, err := recovered(t.Context(), w, &kmsv1.RecoverOptions{Apply: true}, mirror)
	if err != nil || report.Buckets[0].Outcome != kms.RecoveryConflict {
		t.Errorf("as it is: got %+v, %v, want a refusal", report, err)
	}
	key.Key.Use(func(secret []byte) { mirror.Opened = secret })
	report, err = recovered(t.Context(), w, &kmsv1.RecoverOptions{Apply: true}, mirror)
	if err != nil || report.Buckets[0].Outcome != kms.RecoveryMade {
		t.Errorf("opened: got %+v, %v", report, err)
	}
	if got, err := w.manager.BucketKey(t.Context(), b.Space, key.ID); err != nil || !got.Key.Equal(key.Key) {
		t.Errorf("the key: %v, and its bytes are the same: %t", err, got.Key.Equal(key.Key))
	}
	if _, err := recovered(t.Context(), w, &kmsv1.RecoverOptions{RecoveryKek: true}, mirror); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("with a recovery KEK where there is none: got %v, want ErrInvalid", err)
	}
}

func TestMessagesWithAnOpenedKeyDoNotShowIt(t *testing.T) {
	mirror := &kmsv1.RecoverMirror{Opened: []byte("very secret bytes")}
	request := &kmsv1.RecoverRequest{What: &kmsv1.RecoverRequest_Mirror{Mirror: mirror}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		text := fmt.Sprintf(verb, mirror) + fmt.Sprintf(verb, request)
		if !strings.Contains(text, "(hidden)") || strings.Contains(text, "very") || strings.Contains(text, fmt.Sprintf("%x", "very")) {
			t.Errorf("%s: %s", verb, text)
		}
	}
}
