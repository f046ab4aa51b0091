package hsm

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// openPair opens a group of two devices that are each other's clones.
func openPair(t *testing.T, change func(a, b *fakeModule)) (*Group, *fakeModule, *fakeModule, error) {
	t.Helper()
	a, b := newFake(), newFake()
	if change != nil {
		change(a, b)
	}
	modules := map[string]*fakeModule{"a.so": a, "b.so": b}
	load := func(path, _ string) (*Library, error) {
		lib, err := start(path, modules[path])
		if errors.Is(err, ErrUnavailable) { // as loadOrLater
			return &Library{path: path, c: modules[path], generation: 1, lost: true}, nil
		}
		return lib, err
	}
	var configs []Config
	for _, module := range []string{"a.so", "b.so"} {
		configs = append(configs, Config{
			Module: module, Token: Selector{Label: "fake"}, PIN: NewPIN(fakePIN),
			Deadline: 100 * time.Millisecond, Retry: time.Nanosecond,
		})
	}
	g, err := openGroup(t.Context(), configs, load)
	if g != nil {
		t.Cleanup(func() {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return g, a, b, err
}

// cloned opens a pair with a key that both have, under which something is encrypted.
func cloned(t *testing.T) (*Group, *fakeModule, *fakeModule, Key, []byte) {
	t.Helper()
	g, a, b, err := openPair(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := Key{"main.v1", AESGCM}
	if _, err := g.Generate(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	b.set(func() { b.objects = append(b.objects, a.objects[0]) })
	sealed, err := g.Encrypt(t.Context(), key, []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return g, a, b, key, sealed
}

func away(call string) error { return code(call, ckrDeviceRemoved) }

func TestAnotherMemberStandsIn(t *testing.T) {
	g, a, b, key, sealed := cloned(t)
	a.set(func() { a.before = away })
	for range 3 {
		if got, err := g.Decrypt(t.Context(), key, sealed, nil); err != nil || string(got) != "secret" {
			t.Fatalf("with the first away: got %q, %v", got, err)
		}
	}
	if states := g.States(); !states[0].Open || states[1].Open {
		t.Errorf("got %+v, want the first breaker open", states)
	}
	meanwhile, err := g.Encrypt(t.Context(), key, []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a.set(func() { a.before = nil })
	b.set(func() { b.before = away })
	for _, s := range [][]byte{sealed, meanwhile} {
		if got, err := g.Decrypt(t.Context(), key, s, nil); err != nil || string(got) != "secret" {
			t.Errorf("with the second away: got %q, %v", got, err)
		}
	}
	a.set(func() { a.before = away })
	if _, err := g.Decrypt(t.Context(), key, sealed, nil); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCorrupt) {
		t.Errorf("with both away: got %v, want ErrUnavailable", err)
	}
	if err := g.Check(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("checking with both away: got %v, want ErrUnavailable", err)
	}
}

func TestAHangingMemberIsAskedLast(t *testing.T) {
	g, a, _, key, _ := cloned(t)
	_, release := hang(a)
	defer release()
	var took []time.Duration
	for range 3 {
		start := time.Now()
		if _, err := g.Encrypt(t.Context(), key, []byte("secret"), nil); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	if took[0] < 100*time.Millisecond || took[1] > 80*time.Millisecond || took[2] > 80*time.Millisecond {
		t.Errorf("calls took %v, want the deadline once", took)
	}
}

func TestAMemberWithAnotherKeyOfTheNameIsNotUsed(t *testing.T) {
	g, a, b, key, sealed := cloned(t)
	b.set(func() {
		b.objects[0] = &fakeObject{attributes: b.objects[0].attributes, key: bytes.Repeat([]byte{9}, keySize)}
	})
	a.set(func() { a.before = away })
	_, err := g.Encrypt(t.Context(), key, []byte("secret"), nil)
	if !errors.Is(err, ErrUnsafe) {
		t.Errorf("encrypting: got %v, want ErrUnsafe", err)
	}
	if _, err := g.Decrypt(t.Context(), key, sealed, nil); errors.Is(err, ErrCorrupt) || err == nil {
		t.Errorf("decrypting: got %v, want an error that does not blame the data", err)
	}
	a.set(func() { a.before = nil })
	if got, err := g.Decrypt(t.Context(), key, sealed, nil); err != nil || string(got) != "secret" {
		t.Errorf("when the first was back: got %q, %v", got, err)
	}
}

func TestAKeyThatOneMemberHasNotIsUsedInTheOther(t *testing.T) {
	g, a, _, key, sealed := cloned(t)
	a.set(func() { a.objects = nil; clear(a.handles) })
	if got, err := g.Decrypt(t.Context(), key, sealed, nil); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := g.Find(t.Context(), Key{"other.v1", AESGCM}); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
		t.Errorf("a key that nobody has: got %v, want ErrNotFound", err)
	}
}

func TestDestroyIsDoneOnlyWhenEveryMemberDidIt(t *testing.T) {
	g, a, b, key, _ := cloned(t)
	b.set(func() { b.before = away })
	if err := g.Destroy(t.Context(), key); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with one away: got %v, want ErrUnavailable", err)
	}
	if len(a.objects) != 0 {
		t.Error("the one that was there kept the key")
	}
	b.set(func() { b.before = nil })
	if err := g.Destroy(t.Context(), key); err != nil {
		t.Errorf("when it was back: %v", err)
	}
	if len(b.objects) != 0 {
		t.Error("the other one kept the key")
	}
	if err := g.Destroy(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("a third time: got %v, want ErrNotFound", err)
	}
}

func TestAGroupOpensWithoutAMemberThatIsAway(t *testing.T) {
	g, a, _, err := openPair(t, func(a, _ *fakeModule) { a.before = away })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Random(t.Context(), 8); err != nil {
		t.Error(err)
	}
	a.set(func() { a.before = nil })
	if _, err := g.members[0].Random(t.Context(), 8); err != nil {
		t.Errorf("when it was there: %v", err)
	}
	if _, _, _, err := openPair(t, func(a, b *fakeModule) { a.before, b.before = away, away }); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with both away: got %v, want ErrUnavailable", err)
	}
	if _, _, _, err := openPair(t, func(_, b *fakeModule) { b.pin = "other" }); !errors.Is(err, ErrPIN) {
		t.Errorf("with a wrong PIN for the second: got %v, want ErrPIN", err)
	}
}

func TestAModuleIsInitialisedWithOneText(t *testing.T) {
	fake := newFake()
	configs := []Config{
		{Module: "a.so", Parameters: "one", Token: Selector{Label: "fake"}, PIN: NewPIN(fakePIN)},
		{Module: "a.so", Parameters: "two", Token: Selector{Label: "fake"}, PIN: NewPIN(fakePIN)},
	}
	got := ""
	_, err := openGroup(t.Context(), configs, func(path, parameters string) (*Library, error) {
		got += parameters
		return start(path, fake)
	})
	if !errors.Is(err, ErrInvalid) || got != "one" {
		t.Errorf("got %v with the texts %q, want ErrInvalid with one", err, got)
	}
}
