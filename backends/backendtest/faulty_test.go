package backendtest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
	"chatelaine/backends/memstore"
)

func TestFaultyStoreWithoutFaultsPassesTheSuite(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backends.Store {
		s, _ := backendtest.NewFaulty(memstore.New())
		return s
	})
}

func id(key string) backends.ObjectID { return backends.ObjectID{Bucket: "bucket", Key: key} }

func body(text string) backends.Body {
	return backends.Body{Reader: strings.NewReader(text), Size: int64(len(text))}
}

// faulty returns a store with the bucket "bucket" that holds "old" under "key".
func faulty(t *testing.T) (backends.Store, *backendtest.Faults) {
	t.Helper()
	s, faults := backendtest.NewFaulty(memstore.New())
	_, err := s.Put(t.Context(), id("key"), body("old"), nil)
	if !errors.Is(err, backends.ErrBucketNotFound) {
		t.Fatalf("putting into no bucket: %v", err)
	}
	err = s.CreateBucket(t.Context(), "bucket")
	if err == nil {
		_, err = s.Put(t.Context(), id("key"), body("old"), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	faults.Reset()
	return s, faults
}

func read(t *testing.T, s backends.Store, key string) string {
	t.Helper()
	o, err := s.Get(t.Context(), id(key), nil)
	if err != nil {
		return err.Error()
	}
	defer o.Body.Close()
	data, err := io.ReadAll(o.Body)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func TestFaultsHaveTheOutcomeThatWasAskedFor(t *testing.T) {
	for _, c := range []struct {
		outcome backendtest.Outcome
		read    int // bytes of the body that are left unread
		want    string
	}{
		{backendtest.NotApplied, 3, "old"},
		{backendtest.Applied, 0, "new"},
		{backendtest.Cut, 1, "old"},
	} {
		s, faults := faulty(t)
		faults.Arm(backendtest.Fault{Op: backendtest.Put, Outcome: c.outcome, Bytes: 2})
		r := strings.NewReader("new")
		_, err := s.Put(t.Context(), id("key"), backends.Body{Reader: r, Size: 3}, nil)
		if !errors.Is(err, backendtest.ErrInjected) || !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("outcome %d: error %v", c.outcome, err)
		}
		if got := read(t, s, "key"); got != c.want || r.Len() != c.read {
			t.Errorf("outcome %d: the store holds %q, want %q; %d bytes unread, want %d", c.outcome, got, c.want, r.Len(), c.read)
		}
	}
}

func TestStalledCallsEndWithTheirContext(t *testing.T) {
	s, faults := faulty(t)
	faults.Arm(backendtest.Fault{Op: backendtest.Delete, Outcome: backendtest.Stalled})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Delete(ctx, id("key"), nil)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("ended early: %v", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := read(t, s, "key"); got != "old" {
		t.Errorf("the store holds %q", got)
	}
}

func TestCutReadsYieldSoManyBytesAndTheError(t *testing.T) {
	want := errors.New("wire cut")
	for n := range int64(4) {
		s, faults := faulty(t)
		faults.Arm(backendtest.Fault{Op: backendtest.Get, Outcome: backendtest.Cut, Bytes: n, Err: want})
		o, err := s.Get(t.Context(), id("key"), nil)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		_, err = got.ReadFrom(o.Body)
		if !errors.Is(err, want) || got.String() != "old"[:n] {
			t.Errorf("cut after %d: %q, %v", n, &got, err)
		}
	}
}

func TestFaultsSkipRepeatAndCount(t *testing.T) {
	s, faults := faulty(t)
	faults.Arm(backendtest.Fault{Op: backendtest.Head, Key: "key", Skip: 1, Times: 2})
	var got []bool
	for range 5 {
		_, err := s.Head(t.Context(), id("other"), nil)
		if !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("a fault of another key: %v", err)
		}
		_, err = s.Head(t.Context(), id("key"), nil)
		got = append(got, err == nil)
	}
	want := []bool{true, false, false, true, true}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("calls that succeeded: %v, want %v", got, want)
		}
	}
	if n := faults.Calls(backendtest.Head); n != 10 || faults.Calls(backendtest.Get) != 0 || faults.Armed() != 0 {
		t.Errorf("%d calls of Head, %d of Get, %d faults armed; want 10, 0, 0", n, faults.Calls(backendtest.Get), faults.Armed())
	}
	faults.Arm(backendtest.Fault{Op: backendtest.Head, Times: -1})
	for range 3 {
		if _, err := s.Head(t.Context(), id("key"), nil); err == nil {
			t.Error("an endless fault ended")
		}
	}
	faults.Disarm()
	if _, err := s.Head(t.Context(), id("key"), nil); err != nil {
		t.Error(err)
	}
}

// plain hides everything but the Store of a store.
type plain struct{ backends.Store }

func TestFaultyStoreIsAMultiparterOnlyWhereItsInnerIs(t *testing.T) {
	s, faults := backendtest.NewFaulty(memstore.New())
	parts, ok := backends.As[backends.Multiparter](s)
	if !ok {
		t.Fatal("not a Multiparter over one")
	}
	faults.Arm(backendtest.Fault{Op: backendtest.CreateUpload})
	if _, err := parts.CreateUpload(t.Context(), "bucket", "key", backends.Attributes{}); !errors.Is(err, backendtest.ErrInjected) {
		t.Errorf("the Multiparter goes round the faults: %v", err)
	}
	s, _ = backendtest.NewFaulty(plain{memstore.New()})
	if _, ok := backends.As[backends.Multiparter](s); ok {
		t.Error("a Multiparter over none")
	}
}
