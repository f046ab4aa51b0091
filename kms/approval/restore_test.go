package approval

import (
	"testing"
	"time"

	"chatelaine/kms"
)

func TestOpenRequestsOfABackupAreClosedAndOthersStay(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	item := func(key string, record Record) kms.Item {
		t.Helper()
		out, err := put(key, record)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	open, used := Record{Statement: "a"}, Record{Statement: "b"}
	used.close(StateUsed, now.Add(-time.Hour))
	other := kms.Item{Key: "buckets/x", Value: []byte("{}")}
	index := kms.Item{Key: openedKey, Value: []byte("{}")}

	got, closed, err := CloseRequests([]kms.Item{index, item(requestKey("1"), open), item(requestKey("2"), used), other}, now)
	if err != nil || closed != 1 || len(got) != 3 {
		t.Fatalf("got %d records, %d closed, %v", len(got), closed, err)
	}
	for i, want := range []State{StateExpired, StateUsed} {
		if r, err := decode[Record](got[i]); err != nil || r.Closed != want {
			t.Errorf("request %d: got %q, %v, want %q", i+1, r.Closed, err, want)
		}
	}
	if string(got[2].Value) != "{}" {
		t.Errorf("another record was changed: %s", got[2].Value)
	}
	if _, _, err := CloseRequests([]kms.Item{{Key: requestKey("3"), Value: []byte("x")}}, now); err == nil {
		t.Error("a request that cannot be read was taken")
	}
}
