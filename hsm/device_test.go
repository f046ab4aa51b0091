package hsm

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What can be had of no real device in a test: losses, hangs, odd codes, dialects.

func TestOpenRefusesTokensThatFailTheSelfTest(t *testing.T) {
	for name, lie := range map[string]func(*fakeModule){
		"ignores the IV":       func(f *fakeModule) { f.ignoreIV = true },
		"ignores the AAD":      func(f *fakeModule) { f.ignoreAAD = true },
		"accepts a broken tag": func(f *fakeModule) { f.acceptAll = true },
	} {
		f := newFake()
		lie(f)
		if _, err := openFake(t, f, nil); !errors.Is(err, ErrUnsafe) {
			t.Errorf("a token that %s: got %v, want ErrUnsafe", name, err)
		}
	}
}

func TestKeyIsTestedBeforeItsFirstUseWhereSessionKeysCannotBeMade(t *testing.T) {
	f := newFake()
	f.noSessionKeys, f.acceptAll = true, true
	token, err := openFake(t, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Generate(t.Context(), Key{"main.v1", AESGCM}); !errors.Is(err, ErrUnsafe) {
		t.Errorf("got %v, want ErrUnsafe", err)
	}
	if len(f.objects) != 0 {
		t.Error("the key that failed its test was left in the token")
	}
}

func TestUnsafeAttributesAreNamed(t *testing.T) {
	for _, want := range mustHave() {
		t.Run(want.name, func(t *testing.T) {
			f := newFake()
			token, key := mustOpenFake(t, f, nil)
			f.set(func() { f.objects[0].attributes[want.kind] = !want.value })
			_, err := token.Find(t.Context(), key)
			if !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), want.name) {
				t.Errorf("got %v, want ErrUnsafe naming %s", err, want.name)
			}
			f.set(func() { delete(f.objects[0].attributes, want.kind) })
			if _, err := token.Find(t.Context(), key); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), want.name) {
				t.Errorf("when it cannot be read: got %v, want ErrUnsafe naming %s", err, want.name)
			}
		})
	}
}

func TestKeysOfAnotherKindOrSizeAreUnsafe(t *testing.T) {
	for kind, value := range map[uint]uint{ckaValueLen: 16, ckaKeyType: 0x15, ckaClass: 3} {
		f := newFake()
		token, key := mustOpenFake(t, f, nil)
		f.set(func() { f.objects[0].attributes[kind] = value })
		if _, err := token.Find(t.Context(), key); !errors.Is(err, ErrUnsafe) {
			t.Errorf("attribute 0x%X of %d: got %v, want ErrUnsafe", kind, value, err)
		}
	}
}

// A code that means bad data as well as a bad device is judged by a canary.
func TestAmbiguousCodeIsBadDataWhileTheCanarySings(t *testing.T) {
	for _, badTag := range []uint{ckrGeneralError, ckrFunctionFailed, ckrEncryptedDataInvalid, ckrAEADDecryptFailed} {
		f := newFake()
		f.badTag = badTag
		token, key := mustOpenFake(t, f, nil)
		sealed, err := token.Encrypt(t.Context(), key, []byte("secret"), nil)
		if err != nil {
			t.Fatal(err)
		}
		sealed[len(sealed)-1] ^= 1
		if _, err := token.Decrypt(t.Context(), key, sealed, nil); !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrCorrupt", codeName(badTag), err)
		}
		if got := f.count(&f.starts); got != 1 {
			t.Errorf("%s: bad data made the module start %d times, want 1", codeName(badTag), got)
		}
	}
}

func TestAmbiguousCodeIsABadDeviceWhenTheCanaryDies(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	sealed, err := token.Encrypt(t.Context(), key, []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() {
		f.before = func(call string) error {
			if call == "C_Decrypt" {
				return code(call, ckrGeneralError)
			}
			return nil
		}
	})
	if _, err := token.Decrypt(t.Context(), key, sealed, nil); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrUnavailable and not ErrCorrupt", err)
	}
	f.set(func() { f.before = nil })
	if _, err := token.Decrypt(t.Context(), key, sealed, nil); err != nil {
		t.Errorf("after the device was back: %v", err)
	}
}

func TestLostDeviceIsInitialisedAnew(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	sealed, err := token.Encrypt(t.Context(), key, []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.dead = true }) // until C_Finalize and C_Initialize
	got, err := token.Decrypt(t.Context(), key, sealed, nil)
	if err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	if got := f.count(&f.starts); got != 2 {
		t.Errorf("the module was initialised %d times, want 2", got)
	}
}

func TestLostDeviceIsUnavailableUntilItIsBack(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, func(c *Config) { c.Retry = time.Hour })
	f.set(func() {
		f.dead = true
		f.before = func(call string) error {
			if call == "C_Initialize" {
				return code(call, ckrDeviceError)
			}
			return nil
		}
	})
	_, err := token.Encrypt(t.Context(), key, []byte("secret"), nil)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), `"fake" is not there`) {
		t.Errorf("got %v, want ErrUnavailable naming the token", err)
	}
	f.set(func() { f.before = nil })
	if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("before the pause was over: got %v, want ErrUnavailable", err)
	}
	token.cfg.Retry = time.Nanosecond
	if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); err != nil {
		t.Errorf("after the device was back: %v", err)
	}
}

func TestGenerateIsNotRepeatedOnALostDevice(t *testing.T) {
	f := newFake()
	token, _ := mustOpenFake(t, f, nil)
	var calls atomic.Int32
	f.set(func() {
		f.before = func(call string) error {
			if call == "C_GenerateKey" && calls.Add(1) == 1 {
				return code(call, ckrDeviceError)
			}
			return nil
		}
	})
	if _, err := token.Generate(t.Context(), Key{"other.v1", AESGCM}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if got := calls.Load(); got != 1 {
		t.Errorf("C_GenerateKey was called %d times, want 1", got)
	}
}

func TestDestroyIsNotRepeatedOnALostDevice(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	var calls atomic.Int32
	f.set(func() {
		f.before = func(call string) error {
			if call == "C_DestroyObject" && calls.Add(1) == 1 {
				return code(call, ckrDeviceError)
			}
			return nil
		}
	})
	if err := token.Destroy(t.Context(), key); !errors.Is(err, ErrUnavailable) || calls.Load() != 1 {
		t.Errorf("got %v after %d calls, want ErrUnavailable after one", err, calls.Load())
	}
	if err := token.Destroy(t.Context(), key); err != nil {
		t.Errorf("when it was back: %v", err)
	}
}

func TestOfTwoKeysOfOneLabelNoneIsDestroyed(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	f.set(func() { f.objects = append(f.objects, f.objects[0]) })
	before := len(f.objects)
	if err := token.Destroy(t.Context(), key); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("got %v, want ErrAmbiguous", err)
	}
	if len(f.objects) != before {
		t.Errorf("%d of %d objects are left", len(f.objects), before)
	}
}

func TestClosedSessionsAreReplacedByANewLogin(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	f.closeAll()
	if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); err != nil {
		t.Error(err)
	}
	if starts, logins := f.count(&f.starts), f.count(&f.logins); starts != 1 || logins != 2 {
		t.Errorf("got %d starts and %d logins, want 1 and 2", starts, logins)
	}
}

func TestDeadHandleIsFoundAgain(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	f.set(func() { clear(f.handles) })
	if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); err != nil {
		t.Error(err)
	}
	if got := f.count(&f.starts); got != 1 {
		t.Errorf("the module was initialised %d times, want 1", got)
	}
}

func TestDeletedKeyIsNotFound(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	f.set(func() { f.objects = nil; clear(f.handles) })
	for range 2 {
		if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	}
	if got := f.count(&f.starts); got != 2 {
		t.Errorf("the module was initialised %d times, want 2: once to see whether the token is there", got)
	}
}

func TestDeletedKeyIsNotFoundWithoutANewStartWhenAnotherKeyWorks(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	other := Key{"other.v1", AESGCM}
	if _, err := token.Generate(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	f.set(func() {
		for h, o := range f.handles {
			if o.attributes[ckaLabel] == key.Label {
				delete(f.handles, h)
			}
		}
		f.drop(f.objects[0])
	})
	if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if got := f.count(&f.starts); got != 1 {
		t.Errorf("the module was initialised %d times, want 1", got)
	}
}

func TestWrongPINIsTriedOnce(t *testing.T) {
	f := newFake()
	_, err := openFake(t, f, func(c *Config) { c.PIN = NewPIN("0000") })
	if !errors.Is(err, ErrPIN) || !strings.Contains(err.Error(), "tried once") || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrPIN saying that it was tried once", err)
	}
	if strings.Contains(err.Error(), "0000") {
		t.Error("the error shows the PIN")
	}
	if got := f.count(&f.logins); got != 1 {
		t.Errorf("C_Login was called %d times, want 1", got)
	}
}

func TestPINThatWasChangedMeanwhileIsTriedOnce(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	f.set(func() { f.pin, f.dead = "other", true })
	for range 3 {
		if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); !errors.Is(err, ErrPIN) {
			t.Errorf("got %v, want ErrPIN", err)
		}
	}
	if got := f.count(&f.logins); got != 2 {
		t.Errorf("C_Login was called %d times, want 2: one good, one refused", got)
	}
}

func TestNobodyLogsInForACallerThatHasGone(t *testing.T) {
	f := newFake()
	lib, err := start("fake.so", f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := Config{Library: lib, Token: Selector{Label: "fake"}, PIN: NewPIN(fakePIN)}
	if _, err := Open(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if got := f.count(&f.logins); got != 0 {
		t.Errorf("C_Login was called %d times, want 0", got)
	}
	if err := lib.Close(); err != nil {
		t.Error(err)
	}
}

func TestPINIsNotTriedWhereItMightLockTheToken(t *testing.T) {
	for _, flags := range []uint{
		ckfTokenInitialized | ckfUserPINInitialized | ckfUserPINFinalTry,
		ckfTokenInitialized | ckfUserPINInitialized | ckfUserPINLocked,
		ckfTokenInitialized,
	} {
		f := newFake()
		f.tokens[0].flags = flags
		if _, err := openFake(t, f, nil); !errors.Is(err, ErrPIN) {
			t.Errorf("flags 0x%X: got %v, want ErrPIN", flags, err)
		}
		if got := f.count(&f.logins); got != 0 {
			t.Errorf("flags 0x%X: C_Login was called", flags)
		}
	}
}

// A token answers CKR_USER_ALREADY_LOGGED_IN to a wrong PIN, too.
func TestLoginOfSomebodyElseProvesNoPIN(t *testing.T) {
	f := newFake()
	first, _ := mustOpenFake(t, f, nil)
	for _, pin := range []string{fakePIN, "0000"} {
		_, err := Open(t.Context(), Config{Library: first.lib, Token: Selector{Label: "fake"}, PIN: NewPIN(pin)})
		if !errors.Is(err, ErrInUse) {
			t.Errorf("got %v, want ErrInUse", err)
		}
	}
	if _, err := first.Random(t.Context(), 8); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
}

func TestTwoTokensOfOneLabelAreAmbiguous(t *testing.T) {
	f := newFake()
	f.tokens = append(f.tokens, f.tokens[0])
	f.tokens[1].serial = "2"
	if _, err := openFake(t, f, nil); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("got %v, want ErrAmbiguous", err)
	}
	g := newFake()
	g.tokens = f.tokens
	if _, err := openFake(t, g, func(c *Config) { c.Token.Serial = "2" }); err != nil {
		t.Errorf("with a serial number: %v", err)
	}
}

func TestKeyMadeTwiceAtTheSameTimeIsTakenBack(t *testing.T) {
	f := newFake()
	token, _ := mustOpenFake(t, f, nil)
	f.set(func() {
		f.before = func(call string) error {
			if call == "C_GenerateKey" { // another process is a moment faster
				f.set(func() { f.objects = append(f.objects, &fakeObject{attributes: map[uint]any{ckaLabel: "other.v1"}}) })
			}
			return nil
		}
	})
	if _, err := token.Generate(t.Context(), Key{"other.v1", AESGCM}); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if len(f.objects) != 2 {
		t.Errorf("the token has %d objects, want 2: main.v1 and the other process's", len(f.objects))
	}
}

// hang makes C_Encrypt wait until the returned function is called.
func hang(f *fakeModule) (entered <-chan struct{}, release func()) {
	in, out := make(chan struct{}, 100), make(chan struct{})
	f.set(func() {
		f.before = func(call string) error {
			if call == "C_Encrypt" {
				in <- struct{}{}
				<-out
			}
			return nil
		}
	})
	return in, sync.OnceFunc(func() { close(out) })
}

func TestHangingCallEndsAtTheDeadline(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, func(c *Config) { c.Deadline = 30 * time.Millisecond })
	_, release := hang(f)
	defer release()
	_, err := token.Encrypt(t.Context(), key, []byte("secret"), nil)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "has not answered") {
		t.Errorf("got %v, want ErrUnavailable for want of an answer", err)
	}
}

func TestHangingCallKeepsItsSessionAndCallersTheirContext(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, func(c *Config) { c.MaxSessions = 1 })
	entered, release := hang(f)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := token.Encrypt(ctx, key, []byte("secret"), nil)
		first <- err
	}()
	<-entered
	waiting, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := token.Random(waiting, 8); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for the only session: got %v, want context.DeadlineExceeded", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the call whose context was cancelled: got %v, want context.Canceled", err)
	}
	release()
	if _, err := token.Random(t.Context(), 8); err != nil {
		t.Errorf("after the call had returned: %v", err)
	}
}

// The caller may reuse its buffers as soon as its context has ended.
func TestCallOwnsWhatItReads(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	entered, release := hang(f)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	secret := []byte("secret")
	if _, err := token.Encrypt(ctx, key, secret, secret); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	clear(secret) // the race detector sees it if the call reads on
	release()
}

func TestPoolIsBoundedByTheTokensLimit(t *testing.T) {
	for _, tt := range []struct {
		configured, reserve int
		limit, rwLimit      uint
		want                int
	}{
		{0, 0, 0, 0, 30},
		{0, 0, ckUnavailableInformation, 0, 30},
		{0, 0, 16, 0, 13},
		{0, 5, 16, 0, 10},
		{0, 0, 16, 8, 5},
		{4, 0, 16, 0, 4},
		{0, 0, 2, 0, 1},
	} {
		cfg := Config{MaxSessions: tt.configured, Reserve: tt.reserve}.withDefaults()
		if got := cfg.poolSize(tokenInfo{maxSessions: tt.limit, maxRWSessions: tt.rwLimit}); got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
	}
}

func TestSessionsStayWithinThePool(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, func(c *Config) { c.MaxSessions = 3 })
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := f.count(&f.peak); got > 4 {
		t.Errorf("%d sessions were open at once, want at most 3 and the one that stays", got)
	}
}

func TestConcurrentCallsSurviveALoss(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			if i == 20 {
				f.set(func() { f.dead = true })
			}
			sealed, err := token.Encrypt(t.Context(), key, []byte("secret"), nil)
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := token.Decrypt(t.Context(), key, sealed, nil); err != nil || string(got) != "secret" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	group.Wait()
}

func TestCloseWaitsForRunningCalls(t *testing.T) {
	f := newFake()
	token, key := mustOpenFake(t, f, nil)
	entered, release := hang(f)
	result := make(chan error, 1)
	go func() {
		_, err := token.Encrypt(context.Background(), key, []byte("secret"), nil)
		result <- err
	}()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- token.Close() }()
	select {
	case <-closed:
		t.Error("Close did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	release()
	if err := errors.Join(<-result, <-closed); err != nil {
		t.Error(err)
	}
}

func TestCloseGivesUpOnACallThatHangs(t *testing.T) {
	f := newFake()
	lib, err := start("fake.so", f)
	if err != nil {
		t.Fatal(err)
	}
	token, err := Open(t.Context(), Config{Library: lib, Token: Selector{Label: "fake"}, PIN: NewPIN(fakePIN), Deadline: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	key := Key{"main.v1", AESGCM}
	if _, err := token.Generate(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	_, release := hang(f)
	defer release()
	_, _ = token.Encrypt(t.Context(), key, []byte("secret"), nil)
	if err := token.Close(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestObserverHearsOfEachOperation(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	f := newFake()
	token, key := mustOpenFake(t, f, func(c *Config) {
		c.Observe = func(operation, code string, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, operation+" "+code)
		}
	})
	_, _ = token.Encrypt(t.Context(), key, []byte("secret"), nil)
	_, _ = token.Decrypt(t.Context(), key, bytes.Repeat([]byte{1}, 40), nil)
	_ = token.Check(t.Context())
	want := []string{"login CKR_OK", "generate CKR_OK", "encrypt CKR_OK", "decrypt CKR_ENCRYPTED_DATA_INVALID", "check CKR_OK"}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(heard, want) {
		t.Errorf("got %q, want %q", heard, want)
	}
}

func TestCheckNoticesALogout(t *testing.T) {
	f := newFake()
	token, err := openFake(t, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.loggedIn = false })
	if err := token.Check(t.Context()); err != nil {
		t.Errorf("a login that can be made again: %v", err)
	}
	if got := f.count(&f.logins); got != 2 {
		t.Errorf("got %d logins, want 2", got)
	}
	f.set(func() { f.loggedIn, f.pin = false, "other" })
	if err := token.Check(t.Context()); !errors.Is(err, ErrPIN) {
		t.Errorf("got %v, want ErrPIN", err)
	}
}

func TestModuleInitialisedBySomebodyElseIsInUse(t *testing.T) {
	f := newFake()
	f.started = true
	if _, err := start("fake.so", f); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}
