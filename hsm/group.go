package hsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Group is several tokens that hold the same keys, such as an HSM and its clones. An
// operation goes to the first member that serves, in the order of the configuration;
// one that failed is asked last for a while. Keys are copied by the vendor's means,
// never by us.
//
// No member is used for a key before it has shown that its key of that label is the
// same as another member's: it must decrypt what the other encrypted. The first that
// is asked after the start is believed. All methods may run concurrently.
type Group struct {
	members []*member
	modules Modules // those of the configurations that name none
	log     *zap.Logger
	pause   time.Duration // for which a member that failed is asked last

	proving chan struct{} // held by the one that compares keys

	mu        sync.Mutex
	witnesses map[Key][]byte // what some member encrypted
}

// member is a token of a group. Its fields but the token belong to the group's lock.
type member struct {
	*Token
	failed time.Time
	proven map[Key]bool
}

// witnessed is what members encrypt to compare their keys.
func witnessed() []byte { return []byte("chatelaine: members hold one key") }

// OpenGroup opens all tokens. Some may be away, as long as one is there; what only a
// person can mend, such as a wrong PIN, is an error for each. Modules are loaded once,
// however many tokens they have; Config.Library must be nil. The caller closes the
// Group. Errors: those of Open.
func OpenGroup(ctx context.Context, configs []Config) (*Group, error) {
	return openGroup(ctx, configs, loadOrLater)
}

func openGroup(ctx context.Context, configs []Config, load loader) (*Group, error) {
	g := &Group{log: zap.NewNop(), proving: make(chan struct{}, 1), witnesses: map[Key][]byte{}}
	if err := g.open(ctx, configs, load); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *Group) open(ctx context.Context, configs []Config, load loader) error {
	away := []error{fmt.Errorf("hsm: opening a group: %w: no member serves", ErrUnavailable)}
	for _, cfg := range configs {
		if err := cfg.validate(); err != nil {
			return err
		}
		cfg = cfg.withDefaults()
		lib, err := cmp.Or(cfg.Modules, &g.modules).library(cfg.Module, cfg.Parameters, load)
		if err != nil {
			return fmt.Errorf("hsm: opening token %q: %w", cfg.Token, err)
		}
		m := &member{Token: newToken(cfg, lib), proven: map[Key]bool{}}
		g.members, g.log, g.pause = append(g.members, m), m.log, max(g.pause, cfg.Deadline, cfg.Retry)
		_, err = m.attached(ctx)
		if err = asUnavailable(err); err != nil && !errors.Is(err, ErrUnavailable) {
			return fmt.Errorf("hsm: opening token %q: %w", cfg.Token, err)
		}
		if err != nil {
			away = append(away, err)
		}
	}
	if len(away) > len(g.members) {
		return errors.Join(away...)
	}
	return nil
}

// Generate makes a key in the first member. The others must be given it by the
// vendor's means before they can stand in. Errors: those of Token.Generate.
func (g *Group) Generate(ctx context.Context, key Key) (KeyInfo, error) {
	info, err := g.members[0].Generate(ctx, key)
	if err != nil {
		return info, err
	}
	for _, m := range g.members[1:] {
		if _, err := m.Find(ctx, key); err != nil {
			g.log.Warn("a member of the group has not the new key: copy it with the vendor's tool",
				zap.String("key", key.Label), zap.Stringer("token", m.cfg.Token), zap.Error(err))
		}
	}
	return info, nil
}

// Find is Token.Find in the first member that serves and has the key.
func (g *Group) Find(ctx context.Context, key Key) (KeyInfo, error) {
	return failover(ctx, g, Key{}, func(t *Token) (KeyInfo, error) { return t.Find(ctx, key) })
}

// Destroy destroys a key in every member. While one is away the others have done so
// and the error is ErrUnavailable: call it again. ErrNotFound when no member had it.
func (g *Group) Destroy(ctx context.Context, key Key) error {
	g.forget(key)
	var problems []error
	missing := 0
	for _, m := range g.members {
		err := m.Destroy(ctx, key)
		if errors.Is(err, ErrNotFound) && !errors.Is(err, ErrUnavailable) {
			missing++
			continue
		}
		problems = append(problems, err)
	}
	if missing == len(g.members) {
		return fmt.Errorf("hsm: destroying key %q: %w in any member", key.Label, ErrNotFound)
	}
	return errors.Join(problems...)
}

// Encrypt is Token.Encrypt.
func (g *Group) Encrypt(ctx context.Context, key Key, plaintext, aad []byte) ([]byte, error) {
	return failover(ctx, g, key, func(t *Token) ([]byte, error) { return t.Encrypt(ctx, key, plaintext, aad) })
}

// Decrypt is Token.Decrypt.
func (g *Group) Decrypt(ctx context.Context, key Key, ciphertext, aad []byte) ([]byte, error) {
	return failover(ctx, g, key, func(t *Token) ([]byte, error) { return t.Decrypt(ctx, key, ciphertext, aad) })
}

// Random is Token.Random.
func (g *Group) Random(ctx context.Context, n int) ([]byte, error) {
	return failover(ctx, g, Key{}, func(t *Token) ([]byte, error) { return t.Random(ctx, n) })
}

// Check finds out whether any member serves.
func (g *Group) Check(ctx context.Context) error {
	_, err := failover(ctx, g, Key{}, func(t *Token) (struct{}, error) { return struct{}{}, t.Check(ctx) })
	return err
}

// States is each member's State.
func (g *Group) States() []State {
	var all []State
	for _, m := range g.members {
		all = append(all, m.States()...)
	}
	return all
}

// Close closes the tokens and their modules. A second Close does nothing.
func (g *Group) Close() error {
	var problems []error
	for _, m := range g.members {
		problems = append(problems, m.Close())
	}
	return errors.Join(append(problems, g.modules.Close())...)
}

// failover asks the members in turn until one gives an answer that another one would
// not better. With a key it asks only those that have shown to have the same.
func failover[T any](ctx context.Context, g *Group, key Key, f func(*Token) (T, error)) (T, error) {
	var problems []error
	var none T
	for _, m := range g.order() {
		err := g.prove(ctx, m, key)
		if err == nil {
			var value T
			if value, err = f(m.Token); err == nil {
				return value, nil
			}
		}
		if !anothersMatter(err) {
			return none, err
		}
		g.blame(m, err)
		problems = append(problems, err)
	}
	return none, errors.Join(problems...)
}

// anothersMatter tells the errors of one member that say nothing of the next.
func anothersMatter(err error) bool {
	for _, one := range []error{ErrUnavailable, ErrPIN, ErrNotFound, ErrUnsafe, ErrAmbiguous, ErrUnsupported} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// order is the members with those that failed of late behind.
func (g *Group) order() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	ordered := slices.Clone(g.members)
	slices.SortStableFunc(ordered, func(a, b *member) int {
		switch x, y := g.failedOfLate(a), g.failedOfLate(b); {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
	return ordered
}

func (g *Group) failedOfLate(m *member) bool { return time.Since(m.failed) < g.pause }

// blame lets the others be asked first for a while, if the member was away.
func (g *Group) blame(m *member, err error) {
	if !errors.Is(err, ErrUnavailable) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.failedOfLate(m) {
		g.log.Warn("a member of the group does not serve", zap.Stringer("token", m.cfg.Token), zap.Error(err))
	}
	m.failed = time.Now()
}

// prove lets a member show that it has the same key as the others, once.
func (g *Group) prove(ctx context.Context, m *member, key Key) error {
	if key == (Key{}) || g.isProven(m, key) {
		return nil
	}
	select {
	case g.proving <- struct{}{}:
		defer func() { <-g.proving }()
	case <-ctx.Done():
		return ctx.Err()
	}
	g.mu.Lock()
	witness := g.witnesses[key]
	g.mu.Unlock()
	if witness == nil {
		sealed, err := m.Encrypt(ctx, key, witnessed(), witnessed())
		if err == nil {
			g.proved(m, key, sealed)
		}
		return err
	}
	_, err := m.Decrypt(ctx, key, witness, witnessed())
	switch {
	case err == nil:
		g.proved(m, key, witness)
		return nil
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("hsm: comparing key %q: %w: token %q has another key of this name than the rest of its group",
			key.Label, ErrUnsafe, m.cfg.Token)
	}
	return err
}

func (g *Group) isProven(m *member, key Key) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return m.proven[key]
}

func (g *Group) proved(m *member, key Key, witness []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.proven[key], g.witnesses[key] = true, witness
}

func (g *Group) forget(key Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	same := func(k Key) bool { return k.Label == key.Label }
	maps.DeleteFunc(g.witnesses, func(k Key, _ []byte) bool { return same(k) })
	for _, m := range g.members {
		maps.DeleteFunc(m.proven, func(k Key, _ bool) bool { return same(k) })
	}
}
