package transit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
	"chatelaine/kms/pkcs11"
	"chatelaine/kms/registry"
	"chatelaine/kms/transit"
	"chatelaine/test/servers"
)

// A key moves from an HSM to Vault and back while its bucket keys are read: no read
// fails, and in the end each place is needed for what is there alone.
func TestKeyMovesBetweenHSMAndVaultUnderLoad(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	hsm, err := pkcs11.New(t.Context(), pkcs11.Config{HSM: hsmtest.Token(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hsm.Close() })
	vault := open(t, transit.Config{Address: v.Address, Auth: token(v.Token)})
	m, err := kms.NewManager(t.Context(), kms.Config{
		Registry: registry.NewMemory(), Providers: map[string]kms.Provider{"hsm": hsm, "vault": vault}, DefaultProvider: "hsm",
	})
	if err == nil {
		_, err = m.EnsureKEK(t.Context(), "main")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() { m.Run(ctx) })
	var reads atomic.Int64
	for i := range 20 {
		name := fmt.Sprintf("bucket-%d", i)
		b, err := m.RegisterBucket(t.Context(), kms.NewBucket{Name: name, Store: "s", StoreName: name, Owner: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		key, err := m.CurrentKey(t.Context(), b.Space)
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() { readOn(ctx, t, m, b.Space, key, &reads) })
	}
	for i, to := range []string{"vault", "hsm"} {
		before := reads.Load()
		kek, err := m.MigrateKEK(t.Context(), "main", to, kms.Change{})
		if err != nil || kek.Holder(kek.Primary) != to || kek.Provider != to || int(kek.Primary) != i+2 || kek.Holder(1) != "hsm" {
			t.Fatalf("to %s: got %+v, %v", to, kek, err)
		}
		if _, err := m.StartRewrap(t.Context(), "main", 0, kms.Change{}); err != nil {
			t.Fatal(err)
		}
		if job := awaitJob(t, m); job.State != kms.JobDone || job.Done < 20 {
			t.Errorf("to %s: got %+v", to, job)
		}
		report, _, err := m.Report(t.Context(), "main")
		if err != nil || report.Versions[i].Counts[kms.NeedBucketKey] != 0 {
			t.Errorf("to %s: got %+v, %v", to, report, err)
		}
		if reads.Load() == before {
			t.Errorf("to %s: nothing was read meanwhile", to)
		}
	}
	if _, err := m.MigrateKEK(t.Context(), "main", "hsm", kms.Change{}); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("to where it is: got %v, want ErrInvalid", err)
	}
	if _, err := m.MigrateKEK(t.Context(), "main", "nowhere", kms.Change{}); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("to nowhere: got %v, want ErrInvalid", err)
	}
	t.Logf("%d reads", reads.Load())
}

// readOn reads a bucket key again and again, and wants the same each time.
func readOn(ctx context.Context, t *testing.T, m *kms.Manager, space string, want kms.OpenKey, reads *atomic.Int64) {
	for ctx.Err() == nil {
		got, err := m.BucketKey(ctx, space, want.ID)
		if ctx.Err() != nil {
			return
		}
		if err != nil || !got.Key.Equal(want.Key) {
			t.Errorf("reading: %v", err)
			return
		}
		reads.Add(1)
		time.Sleep(2 * time.Millisecond)
	}
}

func awaitJob(t *testing.T, m *kms.Manager) kms.Job {
	t.Helper()
	for {
		job, err := m.RewrapJob(t.Context(), "main")
		if err != nil {
			t.Fatal(err)
		}
		if job.State != kms.JobRunning {
			return job
		}
		time.Sleep(5 * time.Millisecond)
	}
}
