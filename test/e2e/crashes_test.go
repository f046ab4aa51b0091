package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

// recovery is from when the process that holds the PKCS#11 module is there again to
// when it serves: it has then started its state, the module and the login.
const recovery = 2 * time.Second

// TestTheModulesProcessIsKilledTwentyTimes under mixed load: no wrong byte, nothing
// acknowledged is lost, what cannot be served is 503 with Retry-After (which try
// checks of every answer), and the PIN is given once for each start.
func TestTheModulesProcessIsKilledTwentyTimes(t *testing.T) {
	const times = 20
	k := newCluster(t, cloud{}, 1)
	gateway := k.replicas[0]
	w := &world{t: t, Gateway: &harness.Gateway{Process: gateway.Process, Options: harness.Options{User: k.user}, Endpoint: gateway.client.Endpoint}}
	l := newLoad(w)
	var took []time.Duration
	l.phase("the KMS is killed again and again", time.Second, 0, func() {
		for range times {
			k.kms.Kill()
			k.startKMS()
			took = append(took, l.served())
		}
	})
	l.verify()
	if got := strings.Count(k.kms.Stderr(), "not logged in"); got != 0 {
		t.Errorf("%d logins failed", got)
	}
	if got := strings.Count(k.kms.Stderr(), "logged in"); got != times+1 {
		t.Errorf("the PIN was given %d times in %d starts", got, times+1)
	}
	slices.Sort(took)
	if worst := took[len(took)-1]; worst > recovery {
		t.Errorf("it served %v after it was back, want at most %v", worst, recovery)
	}
	t.Logf("%d kills: served again after %v (median) and %v (worst); %d writes acknowledged, %d reads verified, %d answers of 503",
		times, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), l.writes.Load(), l.reads.Load(), l.busy.Load())
}

// served makes a bucket, which nothing but the HSM can do, as soon as it can be made,
// and returns how long that took.
func (l *load) served() time.Duration {
	l.t.Helper()
	began := time.Now()
	for time.Since(began) < stopPatience {
		a, err := trySend(l.t, l.client(), harness.Request{Method: http.MethodPut, Path: "/" + newName()})
		switch {
		case err != nil:
			l.t.Error(err)
			return time.Since(began)
		case a.status == http.StatusOK:
			return time.Since(began)
		case a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "":
			l.t.Errorf("making a bucket: got status %d: %.300s", a.status, a.body)
			return time.Since(began)
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Error("it never served again")
	return time.Since(began)
}
