package kms_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"chatelaine/kms"
	"chatelaine/kms/registry"
	"chatelaine/kms/softkey"
)

// fixture is a KMS on a registry in memory and software keys.
type fixture struct {
	*kms.Manager
	registry kms.Registry
	provider *softkey.Provider
	dir      string
	logs     *bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := newEmptyFixture(t)
	if _, err := f.EnsureKEK(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	return f
}

func newEmptyFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{registry: registry.NewMemory(), dir: filepath.Join(t.TempDir(), "keys"), logs: &bytes.Buffer{}}
	provider, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: f.dir, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Close() })
	f.provider = provider
	f.Manager = f.manager(t, f.config())
	return f
}

func (f *fixture) config() kms.Config {
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(f.logs)), zap.DebugLevel)
	return kms.Config{
		Registry: f.registry, Providers: map[string]kms.Provider{"soft": f.provider},
		Development: true, Logger: zap.New(core),
	}
}

func (f *fixture) manager(t *testing.T, c kms.Config) *kms.Manager {
	t.Helper()
	m, err := kms.NewManager(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (f *fixture) bucket(t *testing.T, name string) kms.Bucket {
	t.Helper()
	b, err := f.RegisterBucket(t.Context(), kms.NewBucket{Name: name, Store: "files", StoreName: "p-" + name, Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bytesOf(s kms.Secret) (out []byte) {
	s.Use(func(b []byte) { out = slices.Clone(b) })
	return out
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// setState writes a KEK version's state into the registry, as a later command will.
func (f *fixture) setState(t *testing.T, from, to kms.KeyState) {
	t.Helper()
	f.edit(t, "keks/main", `"state":"`+string(from)+`"`, `"state":"`+string(to)+`"`)
}

func (f *fixture) edit(t *testing.T, key, old, new string) {
	t.Helper()
	item, err := f.registry.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(item.Value, []byte(old)) {
		t.Fatalf("%q is not in %s", old, item.Value)
	}
	item.Value = bytes.Replace(item.Value, []byte(old), []byte(new), 1)
	if err := f.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{item}}); err != nil {
		t.Fatal(err)
	}
}

func TestNewManagerReportsAllThatIsWrong(t *testing.T) {
	_, err := kms.NewManager(t.Context(), kms.Config{DefaultKEK: "a/b", EpochPeriod: time.Second})
	for _, want := range []string{"default KEK", "no registry", "no provider", "under a minute"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestStartFailsWhenTheTokenLacksAKEK(t *testing.T) {
	f := newFixture(t)
	other, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "other"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	c := f.config()
	c.Providers = map[string]kms.Provider{"soft": other}
	_, err = kms.NewManager(t.Context(), c)
	wantErr(t, err, kms.ErrNotFound)
	if err == nil || !strings.Contains(err.Error(), "KEK main.v1 is in the registry but not in the token") {
		t.Errorf("the error does not help: %v", err)
	}
	if _, err := other.Inspect(t.Context(), kms.KeyRef{Name: "main", Version: 1}); !errors.Is(err, kms.ErrNotFound) {
		t.Errorf("a key was made anew: %v", err)
	}

	c.Providers = map[string]kms.Provider{"another": other}
	_, err = kms.NewManager(t.Context(), c)
	wantErr(t, err, kms.ErrUnavailable)

	f.setState(t, kms.Active, kms.Destroyed)
	c.Providers = map[string]kms.Provider{"soft": other}
	if _, err := kms.NewManager(t.Context(), c); err != nil {
		t.Errorf("a destroyed version is not needed: %v", err)
	}
}

func TestCreateKEK(t *testing.T) {
	f := newEmptyFixture(t)
	kek, err := f.CreateKEK(t.Context(), "main", kms.KEKOptions{Change: kms.Change{Actor: "bob", Reason: "the first"}})
	if err != nil {
		t.Fatal(err)
	}
	v := kek.Version(1)
	if kek.Primary != 1 || v == nil || v.State != kms.Active || v.Mechanism == "" || len(v.History) != 2 || v.History[1].Actor != "bob" || v.History[1].Reason != "the first" {
		t.Errorf("got %+v", kek)
	}
	_, err = f.CreateKEK(t.Context(), "main", kms.KEKOptions{})
	wantErr(t, err, kms.ErrExists)
	_, err = f.CreateKEK(t.Context(), "no/name", kms.KEKOptions{})
	wantErr(t, err, kms.ErrInvalid)
	_, err = f.CreateKEK(t.Context(), "x", kms.KEKOptions{Provider: "nowhere"})
	wantErr(t, err, kms.ErrUnavailable)
	again, err := f.EnsureKEK(t.Context(), "main")
	if err != nil || again.Created != kek.Created {
		t.Errorf("EnsureKEK made another: %+v, %v", again, err)
	}
}

func TestCreateKEKDoesNotTakeAKeyThatItDidNotMake(t *testing.T) {
	f := newEmptyFixture(t)
	if _, err := f.provider.Create(t.Context(), kms.KeyRef{Name: "main", Version: 1}); err != nil {
		t.Fatal(err)
	}
	_, err := f.CreateKEK(t.Context(), "main", kms.KEKOptions{})
	wantErr(t, err, kms.ErrExists)
	if keks, _ := f.KEKs(t.Context()); len(keks) != 0 {
		t.Errorf("a record was left: %+v", keks)
	}
	kek, err := f.CreateKEK(t.Context(), "main", kms.KEKOptions{Adopt: true})
	if err != nil || kek.Primary != 1 {
		t.Errorf("adopting: %+v, %v", kek, err)
	}
}

// faults makes commits fail: before they are applied, or after.
type faults struct {
	kms.Registry
	mu      sync.Mutex
	fail    func(kms.Transaction) bool
	applied bool
}

func (r *faults) Commit(ctx context.Context, t kms.Transaction) error {
	r.mu.Lock()
	fail := r.fail != nil && r.fail(t)
	r.mu.Unlock()
	if !fail {
		return r.Registry.Commit(ctx, t)
	}
	if r.applied {
		if err := r.Registry.Commit(ctx, t); err != nil {
			return err
		}
	}
	return kms.ErrUnavailable
}

func (r *faults) failOn(key string, after int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = func(t kms.Transaction) bool {
		for _, item := range t.Put {
			if strings.HasPrefix(item.Key, key) {
				after--
				return after == -1
			}
		}
		return false
	}
}

func TestCreateKEKGoesOnAfterACrash(t *testing.T) {
	for name, commit := range map[string]int{"before the key was made": 0, "after the key was made": 1} {
		for _, applied := range []bool{false, true} {
			bubble(t, name, func(t *testing.T) {
				f := newEmptyFixture(t)
				c := f.config()
				broken := &faults{Registry: f.registry, applied: applied}
				broken.failOn("keks/", commit)
				c.Registry = broken
				m := f.manager(t, c)
				_, err := m.CreateKEK(t.Context(), "main", kms.KEKOptions{})
				wantErr(t, err, kms.ErrUnavailable)
				began := time.Now()
				kek, err := f.EnsureKEK(t.Context(), "main")
				if took := time.Since(began); took > 16*time.Second {
					t.Errorf("it took %v", took)
				}
				if err != nil || kek.Primary != 1 || kek.Version(1).State != kms.Active {
					t.Errorf("applied %t: %+v, %v", applied, kek, err)
				}
			})
		}
	}
}

func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// slow is a provider whose keys take a second to be made.
type slow struct {
	kms.Provider
	made *atomic.Int32
}

func (p slow) Create(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	if p.made != nil {
		p.made.Add(1)
	}
	time.Sleep(time.Second)
	return p.Provider.Create(ctx, ref)
}

func TestManagersThatStartTogetherMakeOneKEK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newEmptyFixture(t)
		c := f.config()
		made := new(atomic.Int32)
		c.Providers = map[string]kms.Provider{"soft": slow{f.provider, made}}
		var wg sync.WaitGroup
		for range 5 {
			m := f.manager(t, c)
			wg.Go(func() {
				if kek, err := m.EnsureKEK(t.Context(), "main"); err != nil || kek.Primary != 1 {
					t.Errorf("got %+v, %v", kek, err)
				}
			})
		}
		wg.Wait()
		if n := made.Load(); n != 1 {
			t.Errorf("the key was made %d times", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.registry = &faults{Registry: f.registry}
		f.registry.(*faults).failOn("keks/", 1)
		_, err := f.manager(t, f.config()).CreateKEK(t.Context(), "other", kms.KEKOptions{})
		wantErr(t, err, kms.ErrUnavailable)
		_, err = f.EnsureKEK(ctx, "other") // somebody else's, unfinished
		wantErr(t, err, context.DeadlineExceeded)
	})
}

// badProvider is a provider with one fault.
type badProvider struct {
	kms.Provider
	wrap   func(kms.Binding, []byte) []byte
	unwrap func(kms.Binding, []byte) ([]byte, error)
	random func(int) []byte
}

func (p badProvider) Wrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	if p.wrap != nil {
		return p.wrap(b, secret), nil
	}
	return p.Provider.Wrap(ctx, ref, b, secret)
}

func (p badProvider) Unwrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	if p.unwrap != nil {
		return p.unwrap(b, wrapped)
	}
	return p.Provider.Unwrap(ctx, ref, b, wrapped)
}

func (p badProvider) Random(ctx context.Context, n int) ([]byte, error) {
	if p.random != nil {
		return p.random(n), nil
	}
	return p.Provider.Random(ctx, n)
}

func TestAKeyThatFailsItsSelfTestIsNotUsed(t *testing.T) {
	plain := func(_ kms.Binding, secret []byte) []byte { return slices.Clone(secret) }
	checked := func(same func(b kms.Binding, wrapped []byte) bool) func(kms.Binding, []byte) ([]byte, error) {
		return func(b kms.Binding, wrapped []byte) ([]byte, error) {
			if !same(b, wrapped) {
				return nil, kms.ErrCorrupt
			}
			return slices.Clone(wrapped), nil
		}
	}
	var last []byte
	remember := func(_ kms.Binding, secret []byte) []byte { last = slices.Clone(secret); return slices.Clone(secret) }
	tests := map[string]struct {
		provider badProvider
		want     error
	}{
		"opens under any binding": {badProvider{wrap: plain, unwrap: checked(func(kms.Binding, []byte) bool { return true })}, kms.ErrUnsafe},
		"opens a flipped bit":     {badProvider{wrap: plain, unwrap: checked(func(b kms.Binding, _ []byte) bool { return b.ID != "another" })}, kms.ErrUnsafe},
		"wraps to the same bytes": {badProvider{wrap: remember, unwrap: checked(func(b kms.Binding, w []byte) bool {
			return b.ID != "another" && bytes.Equal(w, last)
		})}, kms.ErrUnsafe},
		"opens to something else": {badProvider{unwrap: func(kms.Binding, []byte) ([]byte, error) { return make([]byte, 32), nil }}, kms.ErrCorrupt},
		"opens nothing":           {badProvider{unwrap: func(kms.Binding, []byte) ([]byte, error) { return nil, kms.ErrCorrupt }}, kms.ErrCorrupt},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newEmptyFixture(t)
			c := f.config()
			test.provider.Provider = f.provider
			c.Providers = map[string]kms.Provider{"soft": test.provider}
			m := f.manager(t, c)
			_, err := m.CreateKEK(t.Context(), "main", kms.KEKOptions{})
			wantErr(t, err, test.want)
			if _, _, err := m.CreateAccessKey(t.Context(), "alice", false, kms.Change{}); !errors.Is(err, kms.ErrDisabled) {
				t.Errorf("the key is in use: %v", err)
			}
		})
	}
}

func TestAHangingProviderIsUnavailableInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		c := f.config()
		c.Providers = map[string]kms.Provider{"soft": hanging{f.provider}}
		c.ProviderTimeout = 10 * time.Second
		calls := &observer{}
		c.Observer = calls
		m := f.manager(t, c)
		began := time.Now()
		err := m.Check(t.Context())
		wantErr(t, err, kms.ErrUnavailable)
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("took %v, want 10 s", took)
		}
		if want := "soft inspect <nil>\nsoft check unavailable\n"; calls.log != want {
			t.Errorf("observed %q, want %q", calls.log, want)
		}
	})
}

type hanging struct{ kms.Provider }

func (hanging) Check(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

type observer struct{ log string }

func (o *observer) ProviderCall(provider, op string, _ time.Duration, err error) {
	result := "<nil>"
	if errors.Is(err, kms.ErrUnavailable) {
		result = "unavailable"
	}
	o.log += provider + " " + op + " " + result + "\n"
}

func (*observer) RegistryUsage(kms.Usage) {}

func TestStatusTellsWhichPartIsDown(t *testing.T) {
	f := newFixture(t)
	s := f.Status(t.Context())
	if s.Registry != nil || len(s.Providers) != 1 || s.Providers[0].Err != nil || len(s.KEKs) != 1 || s.DefaultKEK != "main" {
		t.Errorf("got %+v", s)
	}
	if err := f.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.provider.Close(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, f.Status(t.Context()).Providers[0].Err, kms.ErrClosed)
	wantErr(t, f.Check(t.Context()), kms.ErrClosed)
}
