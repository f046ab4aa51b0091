package pkcs11_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
	"chatelaine/kms/pkcs11"
	"chatelaine/kms/registry"
)

// TestRewrapOf1000BucketKeysTakesUnder5s is on SoftHSM and on an etcd that writes to
// the disk. Buckets may have any number of objects: the KMS knows none of them.
func TestRewrapOf1000BucketKeysTakesUnder5s(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a token and some seconds")
	}
	const keys, bound = 1000, 5 * time.Second
	store, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := open(t, pkcs11.Config{HSM: hsmtest.Token(t)})
	m, err := kms.NewManager(t.Context(), kms.Config{Registry: store, Providers: map[string]kms.Provider{"hsm": p}})
	if err == nil {
		_, err = m.EnsureKEK(t.Context(), "main")
	}
	if err != nil {
		t.Fatal(err)
	}
	bucketKeys(t, m, keys)
	if _, err := m.RotateKEK(t.Context(), "main", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { m.Run(running) })
	defer group.Wait()
	defer stop()
	began := time.Now()
	if _, err := m.StartRewrap(t.Context(), "main", 0, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	job := await(t, m)
	took := time.Since(began)
	t.Logf("%d bucket keys were wrapped anew in %v", job.Done, took)
	if job.State != kms.JobDone || job.Done != keys {
		t.Errorf("got %+v", job)
	}
	if took > bound {
		t.Errorf("it took %v, want under %v", took, bound)
	}
	report, _, err := m.Report(t.Context(), "main")
	if err != nil || report.Versions[0].Counts[kms.NeedBucketKey] != 0 || report.Versions[0].Counts[kms.NeedMirror] != keys {
		t.Errorf("got %+v, %v", report, err)
	}
}

// bucketKeys makes buckets with a key each.
func bucketKeys(t *testing.T, m *kms.Manager, n int) {
	t.Helper()
	var group sync.WaitGroup
	todo := make(chan int)
	for range 16 {
		group.Go(func() {
			for i := range todo {
				name := "b" + time.Duration(i).String()
				b, err := m.RegisterBucket(t.Context(), kms.NewBucket{Name: name, Store: "s", StoreName: name, Owner: "alice"})
				if err == nil {
					_, err = m.CurrentKey(t.Context(), b.Space)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		todo <- i
	}
	close(todo)
	group.Wait()
}

func await(t *testing.T, m *kms.Manager) kms.Job {
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
