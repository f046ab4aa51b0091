package hsm

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counting makes the fake count its calls by name, and answer code once to the call
// named sick, if any.
func counting(f *fakeModule, sick string, answer uint) map[string]*atomic.Int32 {
	counts := map[string]*atomic.Int32{"C_OpenSession": {}, "C_CloseSession": {}}
	var once atomic.Bool
	f.set(func() {
		f.before = func(call string) error {
			if n := counts[call]; n != nil {
				n.Add(1)
			}
			if call == sick && once.CompareAndSwap(false, true) {
				return code(call, answer)
			}
			return nil
		}
	})
	return counts
}

func TestSessionIsDiscardedAfterAnErrorThatIsNotOfTheData(t *testing.T) {
	for _, tt := range []struct {
		answer    uint
		discarded int32
	}{
		{ckrEncryptedDataInvalid, 0},
		{ckrEncryptedDataLenRange, 0},
		{ckrGeneralError, 0}, // the canary has shown that it was the data
		{ckrArgumentsBad, 1},
		{ckrBufferTooSmall, 1},
		{ckrHostMemory, 1},
		{ckrKeyHandleInvalid, 1},
	} {
		f := newFake()
		token, key := mustOpenFake(t, f, nil)
		sealed, err := token.Encrypt(t.Context(), key, []byte("secret"), nil)
		if err != nil {
			t.Fatal(err)
		}
		counts := counting(f, "C_Decrypt", tt.answer)
		_, _ = token.Decrypt(t.Context(), key, sealed, nil)
		if got := counts["C_CloseSession"].Load(); got != tt.discarded {
			t.Errorf("%s: %d sessions were discarded, want %d", codeName(tt.answer), got, tt.discarded)
		}
		if got, err := token.Decrypt(t.Context(), key, sealed, nil); err != nil || string(got) != "secret" {
			t.Errorf("%s: afterwards: got %q, %v", codeName(tt.answer), got, err)
		}
	}
}

func TestSessionsAreUsedAgain(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	counts := counting(f, "", 0)
	for range 5 {
		if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); err != nil {
			t.Error(err)
		}
	}
	if opened := counts["C_OpenSession"].Load(); opened != 0 {
		t.Errorf("%d sessions were opened though one was idle", opened)
	}
}

func TestTokenWithoutSessionsLeftSaysSo(t *testing.T) {
	f := newFake()
	token, err := openFake(t, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.limit = 1 }) // which is the logged-in one that stays
	_, err = token.Random(t.Context(), 8)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "smaller number of sessions") {
		t.Errorf("got %v, want ErrUnavailable with advice", err)
	}
	f.set(func() { f.limit = 2 })
	if _, err := token.Random(t.Context(), 8); err != nil {
		t.Errorf("when one was free again: %v", err)
	}
}

func TestModuleIsNotFinalisedUnderARunningCall(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, func(c *Config) { c.Deadline = 50 * time.Millisecond })
	entered, release := hang(f)
	defer release()
	_, _ = token.Encrypt(t.Context(), key, []byte("secret"), nil) // hangs on
	<-entered
	f.set(func() { f.dead = true })
	_, err := token.Random(t.Context(), 8)
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if got := f.count(&f.starts); got != 1 {
		t.Errorf("the module was initialised anew under a call that runs")
	}
	release()
	deadline := time.Now().Add(5 * time.Second)
	for token.Check(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("not mended after the call had returned")
		}
	}
	if got := f.count(&f.starts); got != 2 {
		t.Errorf("the module was initialised %d times, want 2", got)
	}
}

func TestLibraryAdmitsOnlyTheLivingGeneration(t *testing.T) {
	lib, err := start("fake.so", newFake())
	if err != nil {
		t.Fatal(err)
	}
	if err := lib.enter(1); err != nil {
		t.Fatal(err)
	}
	lib.lose(1)
	if err := lib.enter(1); !errors.Is(err, errStale) {
		t.Errorf("a lost generation: got %v, want errStale", err)
	}
	if _, err := lib.ready(time.Millisecond); !errors.Is(err, ErrUnavailable) {
		t.Errorf("starting anew under a call: got %v, want ErrUnavailable", err)
	}
	lib.leave()
	generation, err := lib.ready(time.Second)
	if err != nil || generation != 2 {
		t.Fatalf("got generation %d, %v, want 2", generation, err)
	}
	if err := lib.enter(1); !errors.Is(err, errStale) {
		t.Errorf("an old generation: got %v, want errStale", err)
	}
	lib.lose(1) // a late report about an old generation
	if err := lib.enter(2); err != nil {
		t.Errorf("the new generation: %v", err)
	}
	lib.leave()
	if err := lib.Close(); err != nil {
		t.Error(err)
	}
	if err := lib.enter(2); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
}
