package service

import (
	"testing"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

func TestGatewaysAreToldWhichRecordsToMirrorAnew(t *testing.T) {
	w, c := local(t, nil)
	lease := leaseOf(t, c)
	made, err := c.Gateway.RegisterBucket(t.Context(), &kmsv1.RegisterBucketRequest{Name: "b", Store: "s", StoreName: "b", Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	space := made.GetBucket().GetSpace()
	key, err := c.Gateway.Current(t.Context(), &kmsv1.CurrentRequest{LeaseId: lease, Space: space})
	if err != nil {
		t.Fatal(err)
	}
	go w.manager.Run(t.Context())
	if _, err := w.manager.RotateKEK(t.Context(), "main", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Jobs.StartRewrap(t.Context(), &kmsv1.StartRewrapRequest{Kek: "main"}); err != nil {
		t.Fatal(err)
	}
	var job *kmsv1.RewrapJob
	for deadline := time.Now().Add(10 * time.Second); job.GetState() != string(kms.JobDone); time.Sleep(10 * time.Millisecond) {
		answer, err := c.Jobs.GetRewrap(t.Context(), &kmsv1.GetRewrapRequest{Kek: "main"})
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("got %+v, %v", answer, err)
		}
		job = answer.GetJob()
	}
	if job.GetDone() != 1 || job.GetActor() == "" {
		t.Errorf("got %+v", job)
	}
	todo, err := c.Mirrors.Unmirrored(t.Context(), &kmsv1.UnmirroredRequest{LeaseId: lease})
	if err != nil || len(todo.GetKeys()) != 1 || todo.GetKeys()[0].GetBucket().GetName() != "b" || string(todo.GetKeys()[0].GetKeyId()) != string(key.GetKeyId()) {
		t.Fatalf("got %+v, %v", todo, err)
	}
	record := todo.GetKeys()[0].GetRecord()
	if m, err := kms.ParseMirror(record); err != nil || m.KEKVersion != 2 {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := c.Gateway.ConfirmMirror(t.Context(), &kmsv1.ConfirmMirrorRequest{Space: space, KeyId: key.GetKeyId(), Record: record}); err != nil {
		t.Fatal(err)
	}
	if todo, err = c.Mirrors.Unmirrored(t.Context(), &kmsv1.UnmirroredRequest{LeaseId: lease}); err != nil || len(todo.GetKeys()) != 0 {
		t.Errorf("got %+v, %v", todo, err)
	}
	_, err = c.Mirrors.Unmirrored(t.Context(), &kmsv1.UnmirroredRequest{LeaseId: "none"})
	wantErr(t, err, kms.ErrLease)
}

func TestJobsBucketsAndUsersAreForAdministratorsAndMirrorsForGateways(t *testing.T) {
	for path, want := range map[string]peer{
		"/chatelaine.kms.v1.JobService/StartRewrap":   {admin: true},
		"/chatelaine.kms.v1.BucketService/SetBucket":  {admin: true},
		"/chatelaine.kms.v1.UserService/RotateSecret": {admin: true},
		"/chatelaine.kms.v1.MirrorFeed/Unmirrored":    {gateway: true},
		"/chatelaine.kms.v1.LedgerFeed/SettleLedger":  {gateway: true},
	} {
		if other := (peer{admin: !want.admin, gateway: !want.gateway}); !want.may(path) || other.may(path) {
			t.Errorf("%s: %+v may %t, %+v may %t", path, want, want.may(path), other, other.may(path))
		}
	}
}
