// Package kmstest is the conformance suite of kms.Provider. What it asks is the
// contract: a provider is right when it passes, and the negative cases are the
// larger part, because round trips succeed under a key of all zeroes, too.
//
// It refuses to know any provider.
package kmstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"chatelaine/kms"
)

// Run runs the suite. open returns a fresh provider without any key named
// "kmstest..."; it is called once per case, and the suite closes what it returns.
// The cases run one after the other.
func Run(t *testing.T, open func(t *testing.T) kms.Provider) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			p := open(t)
			t.Cleanup(func() {
				if err := p.Close(); err != nil && !errors.Is(err, kms.ErrClosed) {
					t.Errorf("closing: %v", err)
				}
			})
			c.check(t, p)
		})
	}
}

type testCase struct {
	name  string
	check func(t *testing.T, p kms.Provider)
}

func cases() []testCase {
	return []testCase{
		{"CreatedKeyIsInspected", createdKeyIsInspected},
		{"KeyIsCreatedOnce", keyIsCreatedOnce},
		{"ConcurrentCreationSucceedsOnce", concurrentCreationSucceedsOnce},
		{"UnknownKeyIsNotFound", unknownKeyIsNotFound},
		{"ImproperNameIsInvalid", improperNameIsInvalid},
		{"WrappedSecretUnwraps", wrappedSecretUnwraps},
		{"SecretOfImproperSizeIsInvalid", secretOfImproperSizeIsInvalid},
		{"WrappedFormHidesTheSecret", wrappedFormHidesTheSecret},
		{"SameSecretWrapsDifferently", sameSecretWrapsDifferently},
		{"WrongKeyFails", wrongKeyFails},
		{"WrongBindingFails", wrongBindingFails},
		{"FlippedBitFails", flippedBitFails},
		{"WrongLengthFails", wrongLengthFails},
		{"ArgumentsAreLeftAlone", argumentsAreLeftAlone},
		{"DestroyedKeyIsGone", destroyedKeyIsGone},
		{"DestructionLeavesOthersAlone", destructionLeavesOthersAlone},
		{"ConcurrentDestructionSucceedsOnce", concurrentDestructionSucceedsOnce},
		{"RandomIsNotConstant", randomIsNotConstant},
		{"RandomOfImproperSizeIsInvalid", randomOfImproperSizeIsInvalid},
		{"CancelledContextEndsCalls", cancelledContextEndsCalls},
		{"ClosedProviderRefuses", closedProviderRefuses},
		{"ConcurrentCallsKeepApart", concurrentCallsKeepApart},
		{"CheckSucceeds", checkSucceeds},
	}
}

// The suite's key and binding, where it does not matter which.
func someRef() kms.KeyRef { return kms.KeyRef{Name: "kmstest", Version: 1} }

func someBinding() kms.Binding {
	return kms.Binding{Purpose: "bucket-key", Space: "9c4bd0a1-1c35-4b2c-9d3a-000000000001", ID: "000102030405060708090a0b0c0d0e0f"}
}

// planted is a secret that is easily found again in what must not show it.
func planted() []byte { return []byte("planted-secret-of-32-bytes-here!") }

func create(t *testing.T, p kms.Provider, ref kms.KeyRef) kms.KeyInfo {
	t.Helper()
	info, err := p.Create(t.Context(), ref)
	if err != nil {
		t.Fatalf("creating %q: %v", ref, err)
	}
	return info
}

func wrap(t *testing.T, p kms.Provider, ref kms.KeyRef, b kms.Binding, secret []byte) []byte {
	t.Helper()
	wrapped, err := p.Wrap(t.Context(), ref, b, secret)
	if err != nil {
		t.Fatalf("wrapping: %v", err)
	}
	return wrapped
}

// wrapped makes the suite's key and wraps the planted secret under it.
func wrapped(t *testing.T, p kms.Provider) []byte {
	t.Helper()
	create(t, p, someRef())
	return wrap(t, p, someRef(), someBinding(), planted())
}

// wantErr fails unless err is the one wanted and keeps the secret to itself.
func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
	if err != nil && strings.Contains(err.Error(), string(planted())) {
		t.Errorf("%s: the error shows the secret: %v", what, err)
	}
}

// wantCorrupt fails unless unwrapping answers ErrCorrupt and nothing else.
func wantCorrupt(t *testing.T, p kms.Provider, what string, ref kms.KeyRef, b kms.Binding, wrapped []byte) {
	t.Helper()
	got, err := p.Unwrap(t.Context(), ref, b, wrapped)
	wantErr(t, what, err, kms.ErrCorrupt)
	if got != nil {
		t.Errorf("%s: a refusal came with %d bytes", what, len(got))
	}
}

// wantSecret fails unless unwrapping answers the secret.
func wantSecret(t *testing.T, p kms.Provider, ref kms.KeyRef, b kms.Binding, wrapped, want []byte) {
	t.Helper()
	if got, err := p.Unwrap(t.Context(), ref, b, wrapped); err != nil || !bytes.Equal(got, want) {
		t.Errorf("unwrapping: got %x, %v, want %x", got, err, want)
	}
}

func createdKeyIsInspected(t *testing.T, p kms.Provider) {
	for _, ref := range []kms.KeyRef{
		someRef(),
		{Name: "kmstest", Version: 2},
		{Name: "kmstest.v2", Version: 1},
		{Name: "kmstest-with_all.Signs0", Version: 4294967295},
	} {
		created := create(t, p, ref)
		got, err := p.Inspect(t.Context(), ref)
		if err != nil {
			t.Fatalf("inspecting %q: %v", ref, err)
		}
		if got.Ref != ref || got.Mechanism == "" || got.URI == "" || got.Mechanism != created.Mechanism || got.URI != created.URI {
			t.Errorf("inspecting %q: got %+v, after creating %+v", ref, got, created)
		}
	}
}

func keyIsCreatedOnce(t *testing.T, p kms.Provider) {
	before := wrapped(t, p)
	_, err := p.Create(t.Context(), someRef())
	wantErr(t, "creating it again", err, kms.ErrExists)
	wantSecret(t, p, someRef(), someBinding(), before, planted())
}

func concurrentCreationSucceedsOnce(t *testing.T, p kms.Provider) {
	const callers = 8
	answers := make(chan error, callers)
	for range callers {
		go func() {
			_, err := p.Create(t.Context(), someRef())
			answers <- err
		}()
	}
	succeeded := 0
	for range callers {
		if err := <-answers; err == nil {
			succeeded++
		} else {
			wantErr(t, "creating it at the same time", err, kms.ErrExists)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d of %d callers created the same key, want 1", succeeded, callers)
	}
	wantSecret(t, p, someRef(), someBinding(), wrap(t, p, someRef(), someBinding(), planted()), planted())
}

func unknownKeyIsNotFound(t *testing.T, p kms.Provider) {
	form := wrapped(t, p)
	for _, ref := range []kms.KeyRef{{Name: "kmstest", Version: 2}, {Name: "kmstest-unknown", Version: 1}} {
		_, err := p.Inspect(t.Context(), ref)
		wantErr(t, "inspecting", err, kms.ErrNotFound)
		_, err = p.Wrap(t.Context(), ref, someBinding(), planted())
		wantErr(t, "wrapping", err, kms.ErrNotFound)
		_, err = p.Unwrap(t.Context(), ref, someBinding(), form)
		wantErr(t, "unwrapping", err, kms.ErrNotFound)
	}
}

func improperNameIsInvalid(t *testing.T, p kms.Provider) {
	for _, ref := range []kms.KeyRef{{}, {Name: "kmstest"}, {Version: 1}, {Name: strings.Repeat("x", 1000), Version: 1}} {
		_, err := p.Create(t.Context(), ref)
		wantErr(t, "creating", err, kms.ErrInvalid)
		_, err = p.Inspect(t.Context(), ref)
		wantErr(t, "inspecting", err, kms.ErrInvalid)
		_, err = p.Wrap(t.Context(), ref, someBinding(), planted())
		wantErr(t, "wrapping", err, kms.ErrInvalid)
	}
}

func wrappedSecretUnwraps(t *testing.T, p kms.Provider) {
	create(t, p, someRef())
	for _, secret := range [][]byte{
		{0}, {1}, planted(), make([]byte, 32), bytes.Repeat([]byte{0xFF}, 33), bytes.Repeat([]byte{7}, kms.MaxSecret),
	} {
		for _, b := range []kms.Binding{someBinding(), {Purpose: "access-key", ID: "AKIAEXAMPLE"}, {}} {
			wantSecret(t, p, someRef(), b, wrap(t, p, someRef(), b, secret), secret)
		}
	}
}

func secretOfImproperSizeIsInvalid(t *testing.T, p kms.Provider) {
	create(t, p, someRef())
	for _, size := range []int{0, kms.MaxSecret + 1, 1 << 16} {
		_, err := p.Wrap(t.Context(), someRef(), someBinding(), make([]byte, size))
		wantErr(t, fmt.Sprintf("wrapping %d bytes", size), err, kms.ErrInvalid)
	}
}

func wrappedFormHidesTheSecret(t *testing.T, p kms.Provider) {
	if form := wrapped(t, p); bytes.Contains(form, planted()[:8]) {
		t.Errorf("the secret can be read in its wrapped form %q", form)
	}
}

func sameSecretWrapsDifferently(t *testing.T, p kms.Provider) {
	first := wrapped(t, p)
	second := wrap(t, p, someRef(), someBinding(), planted())
	if bytes.Equal(first, second) {
		t.Error("the same secret was wrapped to the same bytes twice")
	}
	// Nor may it show that two secrets are equal: no block may be the same.
	if bytes.Equal(first[len(first)-32:], second[len(second)-32:]) {
		t.Error("the same secret was wrapped to the same last 32 bytes twice")
	}
	wantSecret(t, p, someRef(), someBinding(), first, planted())
	wantSecret(t, p, someRef(), someBinding(), second, planted())
}

func wrongKeyFails(t *testing.T, p kms.Provider) {
	form := wrapped(t, p)
	for _, ref := range []kms.KeyRef{{Name: "kmstest", Version: 2}, {Name: "kmstest-other", Version: 1}} {
		create(t, p, ref)
		wantCorrupt(t, p, "unwrapping under "+ref.String(), ref, someBinding(), form)
	}
	wantSecret(t, p, someRef(), someBinding(), form, planted())
}

func wrongBindingFails(t *testing.T, p kms.Provider) {
	form := wrapped(t, p)
	right := someBinding()
	for what, change := range map[string]func(*kms.Binding){
		"another purpose":      func(b *kms.Binding) { b.Purpose = "access-key" },
		"no purpose":           func(b *kms.Binding) { b.Purpose = "" },
		"another space":        func(b *kms.Binding) { b.Space = strings.Replace(b.Space, "1", "2", 1) },
		"no space":             func(b *kms.Binding) { b.Space = "" },
		"another id":           func(b *kms.Binding) { b.ID = strings.Replace(b.ID, "f", "e", 1) },
		"no id":                func(b *kms.Binding) { b.ID = "" },
		"space and id swapped": func(b *kms.Binding) { b.Space, b.ID = b.ID, b.Space },
		"a byte of id in space": func(b *kms.Binding) {
			b.Space, b.ID = b.Space+b.ID[:1], b.ID[1:]
		},
		"nothing": func(b *kms.Binding) { *b = kms.Binding{} },
	} {
		wrong := right
		change(&wrong)
		wantCorrupt(t, p, "unwrapping for "+what, someRef(), wrong, form)
		// An equal secret that is wrapped for the wrong binding changes nothing.
		wrap(t, p, someRef(), wrong, planted())
		wantCorrupt(t, p, "unwrapping for "+what+", again", someRef(), wrong, form)
	}
	wantSecret(t, p, someRef(), right, form, planted())
}

func flippedBitFails(t *testing.T, p kms.Provider) {
	form := wrapped(t, p)
	for i := range form {
		flipped := bytes.Clone(form)
		flipped[i] ^= 1 << (i % 8)
		wantCorrupt(t, p, fmt.Sprintf("bit %d of byte %d of %d flipped", i%8, i, len(form)), someRef(), someBinding(), flipped)
	}
	wantSecret(t, p, someRef(), someBinding(), form, planted())
}

func wrongLengthFails(t *testing.T, p kms.Provider) {
	form := wrapped(t, p)
	for size := range form {
		wantCorrupt(t, p, fmt.Sprintf("only %d of %d bytes", size, len(form)), someRef(), someBinding(), form[:size])
	}
	for what, longer := range map[string][]byte{
		"a zero behind":    append(bytes.Clone(form), 0),
		"a zero before":    append([]byte{0}, form...),
		"twice":            append(bytes.Clone(form), form...),
		"64 KiB behind":    append(bytes.Clone(form), make([]byte, 1<<16)...),
		"nothing but zero": make([]byte, len(form)),
	} {
		wantCorrupt(t, p, what, someRef(), someBinding(), longer)
	}
	wantCorrupt(t, p, "nil", someRef(), someBinding(), nil)
}

func argumentsAreLeftAlone(t *testing.T, p kms.Provider) {
	create(t, p, someRef())
	secret := planted()
	form := wrap(t, p, someRef(), someBinding(), secret)
	kept := bytes.Clone(form)
	wantSecret(t, p, someRef(), someBinding(), form, planted())
	if !bytes.Equal(secret, planted()) || !bytes.Equal(form, kept) {
		t.Error("the caller's bytes were changed")
	}
	got, err := p.Unwrap(t.Context(), someRef(), someBinding(), form)
	if err != nil {
		t.Fatal(err)
	}
	clear(got) // what was returned belongs to the caller
	wantSecret(t, p, someRef(), someBinding(), form, planted())
}

// destroyedKeyIsGone also for a key that was used, whose handle a provider may keep,
// and for one that is made again under its name: that is another key.
func destroyedKeyIsGone(t *testing.T, p kms.Provider) {
	form := wrapped(t, p)
	wantSecret(t, p, someRef(), someBinding(), form, planted())
	if err := p.Destroy(t.Context(), someRef()); err != nil {
		t.Fatalf("destroying: %v", err)
	}
	for range 2 {
		_, err := p.Inspect(t.Context(), someRef())
		wantErr(t, "inspecting what was destroyed", err, kms.ErrNotFound)
		_, err = p.Unwrap(t.Context(), someRef(), someBinding(), form)
		wantErr(t, "unwrapping under what was destroyed", err, kms.ErrNotFound)
		_, err = p.Wrap(t.Context(), someRef(), someBinding(), planted())
		wantErr(t, "wrapping under what was destroyed", err, kms.ErrNotFound)
		wantErr(t, "destroying it again", p.Destroy(t.Context(), someRef()), kms.ErrNotFound)
	}
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("checking after the last key was destroyed: %v", err)
	}
	create(t, p, someRef())
	wantCorrupt(t, p, "unwrapping under a new key of the name", someRef(), someBinding(), form)
}

func destructionLeavesOthersAlone(t *testing.T, p kms.Provider) {
	others := []kms.KeyRef{{Name: "kmstest", Version: 2}, {Name: "kmstest", Version: 11}, {Name: "kmstest.v1", Version: 1}, {Name: "kmstest-", Version: 1}}
	forms := make([][]byte, len(others))
	create(t, p, someRef())
	for i, ref := range others {
		create(t, p, ref)
		forms[i] = wrap(t, p, ref, someBinding(), planted())
	}
	for _, ref := range []kms.KeyRef{{}, {Name: "kmstest"}, {Version: 1}} {
		wantErr(t, "destroying "+ref.String(), p.Destroy(t.Context(), ref), kms.ErrInvalid)
	}
	wantErr(t, "destroying what is not there", p.Destroy(t.Context(), kms.KeyRef{Name: "kmstest", Version: 3}), kms.ErrNotFound)
	if err := p.Destroy(t.Context(), someRef()); err != nil {
		t.Fatalf("destroying: %v", err)
	}
	for i, ref := range others {
		wantSecret(t, p, ref, someBinding(), forms[i], planted())
	}
}

func concurrentDestructionSucceedsOnce(t *testing.T, p kms.Provider) {
	const callers = 8
	create(t, p, someRef())
	answers := make(chan error, callers)
	for range callers {
		go func() { answers <- p.Destroy(t.Context(), someRef()) }()
	}
	succeeded := 0
	for range callers {
		if err := <-answers; err == nil {
			succeeded++
		} else {
			wantErr(t, "destroying it at the same time", err, kms.ErrNotFound)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d of %d callers destroyed the same key, want 1", succeeded, callers)
	}
}

func randomIsNotConstant(t *testing.T, p kms.Provider) {
	seen := map[string]bool{}
	for _, n := range []int{1024, 32, 32, 32} {
		b, err := p.Random(t.Context(), n)
		if err != nil || len(b) != n {
			t.Fatalf("drawing %d bytes: got %d, %v", n, len(b), err)
		}
		if seen[string(b[:32])] || bytes.Equal(b, make([]byte, n)) {
			t.Errorf("drawing %d bytes gave %x, as before or all zeroes", n, b[:32])
		}
		seen[string(b[:32])] = true
	}
	if b, err := p.Random(t.Context(), 1); err != nil || len(b) != 1 {
		t.Errorf("drawing one byte: got %x, %v", b, err)
	}
}

func randomOfImproperSizeIsInvalid(t *testing.T, p kms.Provider) {
	for _, n := range []int{-1, 0, 1025} {
		_, err := p.Random(t.Context(), n)
		wantErr(t, fmt.Sprintf("drawing %d bytes", n), err, kms.ErrInvalid)
	}
}

// everyCall makes each call that can be made with ctx, for a key that exists.
func everyCall(ctx context.Context, p kms.Provider, form []byte) map[string]error {
	errs := map[string]error{}
	_, errs["Create"] = p.Create(ctx, kms.KeyRef{Name: "kmstest", Version: 9})
	_, errs["Inspect"] = p.Inspect(ctx, someRef())
	_, errs["Wrap"] = p.Wrap(ctx, someRef(), someBinding(), planted())
	_, errs["Unwrap"] = p.Unwrap(ctx, someRef(), someBinding(), form)
	_, errs["Random"] = p.Random(ctx, 32)
	errs["Check"] = p.Check(ctx)
	errs["Destroy"] = p.Destroy(ctx, someRef())
	return errs
}

func cancelledContextEndsCalls(t *testing.T, p kms.Provider) {
	form := wrapped(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for call, err := range everyCall(ctx, p, form) {
		wantErr(t, call, err, context.Canceled)
	}
	_, err := p.Inspect(t.Context(), kms.KeyRef{Name: "kmstest", Version: 9})
	wantErr(t, "inspecting what was not created", err, kms.ErrNotFound)
	wantSecret(t, p, someRef(), someBinding(), form, planted())
}

func closedProviderRefuses(t *testing.T, p kms.Provider) {
	form := wrapped(t, p)
	if err := p.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
	for call, err := range everyCall(t.Context(), p, form) {
		wantErr(t, call, err, kms.ErrClosed)
	}
}

func concurrentCallsKeepApart(t *testing.T, p kms.Provider) {
	create(t, p, someRef())
	create(t, p, kms.KeyRef{Name: "kmstest", Version: 2})
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			ref := kms.KeyRef{Name: "kmstest", Version: 1 + uint32(i)%2}
			b := kms.Binding{Purpose: "bucket-key", ID: fmt.Sprint(i)}
			secret := bytes.Repeat([]byte{byte(i)}, 1+i)
			for range 4 {
				form, err := p.Wrap(t.Context(), ref, b, secret)
				if err != nil {
					t.Errorf("wrapping: %v", err)
					return
				}
				wantSecret(t, p, ref, b, form, secret)
				wantCorrupt(t, p, "another's binding", ref, kms.Binding{Purpose: "bucket-key", ID: fmt.Sprint(i + 1)}, form)
			}
		})
	}
	group.Wait()
}

func checkSucceeds(t *testing.T, p kms.Provider) {
	for _, when := range []string{"before a key was made", "after one was"} {
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if when == "before a key was made" {
			create(t, p, someRef())
		}
	}
}
