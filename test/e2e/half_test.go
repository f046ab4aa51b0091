package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/test/e2e/harness"
)

const (
	halfSessions = 4
	halfCallers  = 16 // of the KMS: its sessions are to be busy while an answer travels
	halfTime     = 400 * time.Millisecond
	halfTurns    = 8
)

// TestTheKMSReachesHalfOfABareLoop compares what the KMS does through its RPC, in a
// process of its own with all its state, with what a loop in C does on as many sessions
// of the same token. They take turns, and one pair that reaches half is enough: what
// else the machine does can only take from a ratio.
//
// The HSM takes five milliseconds for a call, as slow ones do. SoftHSM itself takes 15
// microseconds, less than any RPC does: what is reached on it is printed, and is what the
// KMS can do at the most. A wrap is kept on the disk before it is answered.
func TestTheKMSReachesHalfOfABareLoop(t *testing.T) {
	for _, hsm := range []struct {
		name, delay string
		least       float64
	}{{"HSM of 5 ms", "5000", 0.5}, {"SoftHSM in memory", "0", 0}} {
		t.Run(hsm.name, func(t *testing.T) {
			k := planCluster(t, cloud{})
			k.module, k.pkcs11 = faultyModule(t), fmt.Sprintf(", max_sessions: %d", halfSessions)
			k.moduleEnv = append(newFaults(t, k.path("faults")).env(), "FAULTY_DELAY="+hsm.delay)
			k.start(0)
			h := newHalf(t, k)
			for op, through := range map[string]func(ctx context.Context, lease string) error{"wrap": h.wrap, "unwrap": h.unwrap} {
				best := 0.0
				for turn := 0; turn < halfTurns && (turn == 0 || best < hsm.least); turn++ {
					bare, kms := h.bare(op), h.loop(through)
					best = max(best, kms/bare)
					t.Logf("%s: %.0f a second bare, %.0f through the KMS: %.2f", op, bare, kms, kms/bare)
				}
				if best < hsm.least {
					t.Errorf("%s: the KMS reaches %.2f of a bare loop, want %.2f", op, best, hsm.least)
				}
			}
		})
	}
}

// half has both sides of the comparison.
type half struct {
	t       *testing.T
	k       *cluster
	program string // the bare loop
	clients *service.Clients
	space   string
	key     []byte // the id of a bucket key
}

func newHalf(t *testing.T, k *cluster) *half {
	t.Helper()
	h := &half{t: t, k: k, program: filepath.Join(t.TempDir(), "bareloop")}
	command(t, nil, program(t, "gcc"), "-O2", "-o", h.program, filepath.Join("testdata", "bareloop.c"), "-ldl", "-lpthread")
	var err error
	if h.clients, err = service.Dial(service.DialConfig{Address: k.socket(), Logger: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.clients.Close)
	bucket, err := h.clients.Gateway.RegisterBucket(t.Context(), &kmsv1.RegisterBucketRequest{
		Name: "half", Store: "cloud", StoreName: "half", Owner: "somebody",
	})
	if err != nil {
		t.Fatal(err)
	}
	h.space = bucket.GetBucket().GetSpace()
	key, err := h.clients.Gateway.Current(t.Context(), &kmsv1.CurrentRequest{LeaseId: h.lease(), Space: h.space})
	if err != nil {
		t.Fatal(err)
	}
	h.key = key.GetKeyId()
	return h
}

func (h *half) lease() string {
	h.t.Helper()
	lease, err := h.clients.Gateway.Renew(h.t.Context(), &kmsv1.RenewRequest{GatewayId: "a test"})
	if err != nil {
		h.t.Fatal(err)
	}
	return lease.GetLeaseId()
}

// bare is operations a second of the loop in C.
func (h *half) bare(op string) float64 {
	h.t.Helper()
	out := command(h.t, append(h.k.env(), h.k.moduleEnv...), h.program, h.k.module, "cluster", tokenPIN, "main.v1",
		op, fmt.Sprint(halfSessions), fmt.Sprint(halfTime.Seconds()))
	n, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil || n == 0 {
		h.t.Fatalf("the bare loop says %q", out)
	}
	return n
}

// loop is calls a second.
func (h *half) loop(call func(ctx context.Context, lease string) error) float64 {
	h.t.Helper()
	lease := h.lease()
	var n atomic.Int64
	began := time.Now()
	var group sync.WaitGroup
	for range halfCallers {
		group.Go(func() {
			for time.Since(began) < halfTime {
				if err := call(h.t.Context(), lease); err != nil {
					h.t.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	group.Wait()
	return float64(n.Load()) / time.Since(began).Seconds()
}

// unwrap asks for a bucket key, which the HSM unwraps each time.
func (h *half) unwrap(ctx context.Context, lease string) error {
	_, err := h.clients.Gateway.BucketKey(ctx, &kmsv1.BucketKeyRequest{LeaseId: lease, Space: h.space, KeyId: h.key})
	return err
}

// wrap has a secret wrapped, opened again, and kept: the answer comes when it is on the disk.
func (h *half) wrap(ctx context.Context, _ string) error {
	user := harness.NewCredentials()
	_, err := h.clients.Admin.EnsureAccessKey(ctx, &kmsv1.EnsureAccessKeyRequest{
		Id: user.AccessKeyID, Secret: user.SecretAccessKey, Principal: "somebody",
	})
	return err
}
