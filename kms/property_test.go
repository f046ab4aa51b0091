package kms_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/registry"
)

// vault is a provider in memory that remembers all that it was told to do. Secrets
// in it are tied to their key and binding by a MAC, which is what the tests need.
type vault struct {
	mu      sync.Mutex
	keys    map[kms.KeyRef][]byte
	created map[kms.KeyRef]int
}

func newVault() *vault {
	return &vault{keys: map[kms.KeyRef][]byte{}, created: map[kms.KeyRef]int{}}
}

func (v *vault) Create(_ context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys[ref] != nil {
		return kms.KeyInfo{}, kms.ErrExists
	}
	v.keys[ref] = []byte(rand.Text())
	v.created[ref]++
	return kms.KeyInfo{Ref: ref, Mechanism: "mac", URI: "vault:" + ref.String()}, nil
}

func (v *vault) Inspect(_ context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	_, err := v.key(ref)
	return kms.KeyInfo{Ref: ref, Mechanism: "mac", URI: "vault:" + ref.String()}, err
}

func (v *vault) Destroy(_ context.Context, ref kms.KeyRef) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys[ref] == nil {
		return kms.ErrNotFound
	}
	delete(v.keys, ref)
	return nil
}

func (v *vault) key(ref kms.KeyRef) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys[ref] == nil {
		return nil, kms.ErrNotFound
	}
	return v.keys[ref], nil
}

func (v *vault) Wrap(_ context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	key, err := v.key(ref)
	if err != nil {
		return nil, err
	}
	body := append([]byte(rand.Text()), secret...) // 26 characters, then the secret
	return append(body, mac(key, b.Bytes(ref), body)...), nil
}

func (v *vault) Unwrap(_ context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	key, err := v.key(ref)
	if err != nil {
		return nil, err
	}
	if len(wrapped) < 26+32 {
		return nil, kms.ErrCorrupt
	}
	body, sum := wrapped[:len(wrapped)-32], wrapped[len(wrapped)-32:]
	if !hmac.Equal(sum, mac(key, b.Bytes(ref), body)) {
		return nil, kms.ErrCorrupt
	}
	return slices.Clone(body[26:]), nil
}

func mac(key, binding, body []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(binding)
	m.Write(body)
	return m.Sum(nil)
}

func (v *vault) Random(_ context.Context, n int) ([]byte, error) {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b, nil
}
func (v *vault) Check(context.Context) error { return nil }
func (v *vault) Close() error                { return nil }

// errCrash is what a dead process sees of the world.
var errCrash = errors.New("the process has died")

// crasher kills its process at one of the points where a crash matters: before or
// after a commit, and before or after a key is made or destroyed.
type crasher struct {
	mu    sync.Mutex
	after int // points that are left; 0: it does not crash
	dead  bool
}

func (c *crasher) point() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.after > 0 {
		c.after--
		c.dead = c.dead || c.after == 0
	}
	if c.dead {
		return errCrash
	}
	return nil
}

func (c *crasher) arm(after int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after = after
}

func (c *crasher) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

func (c *crasher) around(do func() error) error {
	if err := c.point(); err != nil {
		return err
	}
	return errors.Join(do(), c.point())
}

type crashingRegistry struct {
	kms.Registry
	*crasher
}

func (r crashingRegistry) Commit(ctx context.Context, t kms.Transaction) error {
	return r.around(func() error { return r.Registry.Commit(ctx, t) })
}

func (r crashingRegistry) Get(ctx context.Context, key string) (kms.Item, error) {
	if r.isDead() {
		return kms.Item{}, errCrash
	}
	return r.Registry.Get(ctx, key)
}

func (r crashingRegistry) List(ctx context.Context, prefix string) ([]kms.Item, error) {
	if r.isDead() {
		return nil, errCrash
	}
	return r.Registry.List(ctx, prefix)
}

type crashingVault struct {
	*vault
	*crasher
}

func (v crashingVault) Create(ctx context.Context, ref kms.KeyRef) (info kms.KeyInfo, err error) {
	return info, v.around(func() error { info, err = v.vault.Create(ctx, ref); return err })
}

func (v crashingVault) Destroy(ctx context.Context, ref kms.KeyRef) error {
	return v.around(func() error { return v.vault.Destroy(ctx, ref) })
}

// process is a Manager that can die.
type process struct {
	*kms.Manager
	*crasher
}

// model is the system under random commands, and what must be true of it.
type model struct {
	t        *testing.T
	seed     uint64
	random   *mathrand.Rand
	registry *registry.Memory
	vault    *vault
	procs    []*process

	mu      sync.Mutex
	secrets map[kms.KeyID][]byte // what each bucket key must open to
	spaces  []string
	before  map[string]kms.KEK
	log     []string
}

func newModel(t *testing.T, seed uint64, processes int) *model {
	m := &model{
		t: t, seed: seed, random: mathrand.New(mathrand.NewPCG(seed, 1)), registry: registry.NewMemory(), vault: newVault(),
		secrets: map[kms.KeyID][]byte{}, before: map[string]kms.KEK{},
	}
	for range processes {
		m.procs = append(m.procs, m.process())
	}
	if _, err := m.procs[0].EnsureKEK(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *model) process() *process {
	c := &crasher{}
	manager, err := kms.NewManager(m.t.Context(), kms.Config{
		Registry: crashingRegistry{m.registry, c}, Providers: map[string]kms.Provider{"vault": crashingVault{m.vault, c}},
		Development: true, EpochPeriod: time.Minute,
	})
	if err != nil {
		m.fail("a process does not start: %v", err)
	}
	return &process{manager, c}
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	log := m.log[max(0, len(m.log)-40):]
	m.t.Fatalf("seed %d: %s\nafter %s", m.seed, fmt.Sprintf(format, args...), bytes.Join(linesOf(log), []byte("\n")))
}

func linesOf(log []string) (out [][]byte) {
	for _, l := range log {
		out = append(out, []byte(l))
	}
	return out
}

// pick draws one of the choices.
func pick[T any](r *mathrand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// command is something that anybody may do at any time. It returns the error, which
// must be one of the contract.
type command struct {
	name string
	do   func(ctx context.Context, r *mathrand.Rand, p *process) error
}

func (m *model) commands() []command {
	name := func(r *mathrand.Rand) string { return pick(r, "main", "main", "a", "b") }
	version := func(r *mathrand.Rand) uint32 { return r.Uint32N(5) }
	by := kms.Change{Actor: "somebody", Reason: "chance"}
	kek := func(f func(*kms.Manager, context.Context, string, uint32, kms.Change) (kms.KEK, error)) func(context.Context, *mathrand.Rand, *process) error {
		return func(ctx context.Context, r *mathrand.Rand, p *process) error {
			_, err := f(p.Manager, ctx, name(r), version(r), by)
			return err
		}
	}
	return []command{
		{"create", func(ctx context.Context, r *mathrand.Rand, p *process) error {
			_, err := p.CreateKEK(ctx, name(r), kms.KEKOptions{Change: by})
			return err
		}},
		{"rotate", func(ctx context.Context, r *mathrand.Rand, p *process) error {
			_, err := p.RotateKEK(ctx, name(r), by)
			return err
		}},
		{"block", kek((*kms.Manager).BlockKEK)},
		{"unblock", kek((*kms.Manager).UnblockKEK)},
		{"unblock", kek((*kms.Manager).UnblockKEK)},
		{"compromise", kek((*kms.Manager).CompromiseKEK)},
		{"destroy", kek((*kms.Manager).ScheduleDestroy)},
		{"destroy", kek((*kms.Manager).ScheduleDestroy)},
		{"restore", kek((*kms.Manager).RestoreKEK)},
		{"restore", kek((*kms.Manager).RestoreKEK)},
		{"restore", kek((*kms.Manager).RestoreKEK)},
		{"deactivate", func(ctx context.Context, r *mathrand.Rand, p *process) error {
			_, err := p.DeactivateKEK(ctx, name(r), by)
			return err
		}},
		{"set", func(ctx context.Context, r *mathrand.Rand, p *process) error {
			rotate, wait := time.Duration(r.IntN(3))*time.Minute, time.Duration(r.IntN(100))*time.Second
			allowed, least := r.IntN(5) > 0, r.Uint32N(3)
			_, err := p.SetKEK(ctx, name(r), kms.KEKSettings{AutoRotate: &rotate, WaitingPeriod: &wait, DeletionAllowed: &allowed, MinDecryption: &least}, by)
			return err
		}},
		{"bucket", m.registerBucket(name)},
		{"remove bucket", m.removeBucket},
		{"current key", m.currentKey},
		{"current key", m.currentKey},
		{"rewrap", m.rewrap},
		{"rewrap", m.rewrap},
		{"confirm mirrors", m.confirm},
		{"access key", func(ctx context.Context, r *mathrand.Rand, p *process) error {
			if r.IntN(10) > 0 {
				return nil // nothing takes them away again
			}
			_, _, err := p.CreateAccessKey(ctx, "alice", false, kms.Change{})
			return err
		}},
		{"time", func(_ context.Context, r *mathrand.Rand, _ *process) error {
			time.Sleep(time.Duration(r.IntN(60)) * time.Second)
			return nil
		}},
		{"keeper", func(ctx context.Context, r *mathrand.Rand, p *process) error {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(300))*time.Second)
			defer cancel()
			p.Run(ctx)
			return nil
		}},
	}
}

func (m *model) registerBucket(name func(*mathrand.Rand) string) func(context.Context, *mathrand.Rand, *process) error {
	return func(ctx context.Context, r *mathrand.Rand, p *process) error {
		text := rand.Text()
		b, err := p.RegisterBucket(ctx, kms.NewBucket{Name: text, Store: "s", StoreName: text, Owner: "alice", KEK: name(r)})
		if err == nil {
			m.mu.Lock()
			m.spaces = append(m.spaces, b.Space)
			m.mu.Unlock()
		}
		return err
	}
}

func (m *model) space(r *mathrand.Rand) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.spaces) == 0 {
		return "00000000-0000-4000-8000-000000000000"
	}
	return m.spaces[r.IntN(len(m.spaces))]
}

func (m *model) removeBucket(ctx context.Context, r *mathrand.Rand, p *process) error {
	all, err := p.Buckets(ctx, "")
	if err != nil || len(all) == 0 {
		return err
	}
	return p.RemoveBucket(ctx, all[r.IntN(len(all))].Name)
}

func (m *model) currentKey(ctx context.Context, r *mathrand.Rand, p *process) error {
	key, err := p.CurrentKey(ctx, m.space(r))
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.secrets[key.ID]; known != nil && !bytes.Equal(known, bytesOf(key.Key)) {
		return fmt.Errorf("key %s opens to something else", key.ID)
	}
	m.secrets[key.ID] = bytesOf(key.Key)
	return nil
}

// rewrap does what the job of rewrapping does, for the keys of one space: the old
// version goes to Stale.
func (m *model) rewrap(ctx context.Context, r *mathrand.Rand, p *process) error {
	items, err := p.registryOf(m).List(ctx, "bucketkeys/"+m.space(r)+"/")
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := m.rewrapItem(ctx, p, item); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) registryOf(m *model) kms.Registry { return crashingRegistry{m.registry, p.crasher} }

func (m *model) rewrapItem(ctx context.Context, p *process, item kms.Item) error {
	var doc struct {
		Schema int            `json:"schema"`
		Record *kms.BucketKey `json:"record"`
	}
	if err := json.Unmarshal(item.Value, &doc); err != nil {
		return err
	}
	kekItem, err := p.registryOf(m).Get(ctx, "keks/"+doc.Record.KEK)
	if err != nil {
		return err
	}
	kek, err := p.KEK(ctx, doc.Record.KEK)
	if err != nil {
		return err
	}
	old := kms.KeyRef{Name: doc.Record.KEK, Version: doc.Record.KEKVersion}
	primary, from := kek.Version(kek.Primary), kek.Version(old.Version)
	if primary.State != kms.Active || primary.Number == old.Version || !from.State.CanUnwrap() || from.Destruction != nil {
		return nil
	}
	b := kms.Binding{Purpose: "bucket-key", Space: doc.Record.Space, ID: doc.Record.ID.String()}
	secret, err := m.vault.Unwrap(ctx, old, b, doc.Record.Wrapped)
	if err != nil { // somebody else was faster, and then it was destroyed
		return fmt.Errorf("%w: %s is gone", kms.ErrConflict, old)
	}
	doc.Record.KEKVersion = primary.Number
	doc.Record.Stale = append(doc.Record.Stale, old)
	doc.Record.Mirrored = false
	if doc.Record.Wrapped, err = m.vault.Wrap(ctx, kek.Ref(primary.Number), b, secret); err != nil {
		return err
	}
	value, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return p.registryOf(m).Commit(ctx, kms.Transaction{
		If:  []kms.Condition{{Key: kekItem.Key, Revision: kekItem.Revision}, {Key: item.Key, Revision: item.Revision}},
		Put: []kms.Item{{Key: item.Key, Value: value}},
	})
}

func (m *model) confirm(ctx context.Context, _ *mathrand.Rand, p *process) error {
	for _, key := range m.bucketKeys() {
		open, err := p.BucketKey(ctx, key.Space, key.ID)
		if err == nil {
			err = p.ConfirmMirror(ctx, key.Space, key.ID, open.Record)
		}
		if err != nil && !errors.Is(err, kms.ErrNotFound) && !errors.Is(err, kms.ErrDisabled) {
			return err
		}
	}
	return nil
}

func listOf[T any](m *model, prefix string) []T {
	items, err := m.registry.List(m.t.Context(), prefix)
	if err != nil {
		m.fail("listing: %v", err)
	}
	var out []T
	for _, item := range items {
		var doc struct{ Record T }
		if err := json.Unmarshal(item.Value, &doc); err != nil {
			m.fail("decoding %q: %v", item.Key, err)
		}
		out = append(out, doc.Record)
	}
	return out
}

func (m *model) bucketKeys() []kms.BucketKey { return listOf[kms.BucketKey](m, "bucketkeys/") }

// inContract says whether a command may fail so.
func inContract(err error) bool {
	for _, e := range []error{
		nil, errCrash, kms.ErrNotFound, kms.ErrExists, kms.ErrDisabled, kms.ErrInvalid, kms.ErrNeeded, kms.ErrConflict,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// check looks at the whole after a command. settled says that nothing runs.
func (m *model) check() {
	m.t.Helper()
	keks := map[string]kms.KEK{}
	for _, k := range listOf[kms.KEK](m, "keks/") {
		keks[k.Name] = k
		m.checkKEK(k)
		m.checkHistory(m.before[k.Name], k)
	}
	for name := range m.before {
		if _, ok := keks[name]; !ok {
			m.fail("KEK %q has vanished", name)
		}
	}
	m.before = keks
	for _, ref := range slices.Collect(maps.Keys(m.vault.created)) {
		if n := m.vault.created[ref]; n > 1 {
			m.fail("%s was made %d times", ref, n)
		}
	}
	m.checkData(keks)
}

func (m *model) checkKEK(k kms.KEK) {
	m.t.Helper()
	active, last := 0, uint32(0)
	for _, v := range k.Versions {
		if v.Number <= last {
			m.fail("%s: version %d after %d", k.Name, v.Number, last)
		}
		last = v.Number
		if v.State == kms.Active {
			active++
			if v.Number != k.Primary {
				m.fail("%s: version %d is active, the primary is %d", k.Name, v.Number, k.Primary)
			}
		}
		if (v.State == kms.Suspended) != (v.Suspension != nil) {
			m.fail("%s: %s with suspension %+v", k.Ref(v.Number), v.State, v.Suspension)
		}
		_, err := m.vault.key(k.Ref(v.Number))
		held := err == nil
		if v.State == kms.Destroyed && held {
			m.fail("%s is destroyed and still there", k.Ref(v.Number))
		}
		if started := v.Destruction != nil && v.Destruction.Started; !held && !started && v.State != kms.Destroyed && v.State != kms.PreActive {
			m.fail("%s is %s and gone", k.Ref(v.Number), v.State)
		}
	}
	switch status := k.Status(); status {
	case "active":
		if active != 1 || k.Blocked {
			m.fail("%s: active with %d active versions, blocked %t", k.Name, active, k.Blocked)
		}
	case "making", "blocked", "deactivated", "compromised", "scheduled", "destroyed":
		if active != 0 {
			m.fail("%s: %s with %d active versions", k.Name, status, active)
		}
	default:
		m.fail("%s: status %q", k.Name, status)
	}
}

// legal lists the changes of state by NIST SP 800-57, beside staying the same.
var legal = map[kms.KeyState][]kms.KeyState{
	kms.PreActive:   {kms.Active, kms.Destroyed},
	kms.Active:      {kms.Suspended, kms.Deactivated},
	kms.Suspended:   {kms.Active, kms.Deactivated, kms.Compromised},
	kms.Deactivated: {kms.Suspended, kms.Compromised, kms.Destroyed},
	kms.Compromised: {kms.Suspended, kms.Destroyed},
}

func (m *model) checkHistory(before, after kms.KEK) {
	m.t.Helper()
	for _, old := range before.Versions {
		v := after.Version(old.Number)
		if v == nil {
			m.fail("version %s has vanished", before.Ref(old.Number))
		}
		if len(old.History) < 150 && (len(v.History) < len(old.History) || !slices.Equal(v.History[:len(old.History)], old.History)) {
			m.fail("%s: the history %v became %v", before.Ref(old.Number), old.History, v.History)
		}
	}
	for _, v := range after.Versions {
		state := kms.PreActive
		for i, c := range v.History {
			if c.State != state && !slices.Contains(legal[state], c.State) {
				m.fail("%s: from %s to %s", after.Ref(v.Number), state, c.State)
			}
			if c.Actor == "" || c.Event == "" || i > 0 && c.At.Before(v.History[i-1].At) {
				m.fail("%s: line %+v of the history", after.Ref(v.Number), c)
			}
			state = c.State
		}
		if state != v.State {
			m.fail("%s: is %s, its history ends with %s", after.Ref(v.Number), v.State, state)
		}
	}
}

// checkData shows that nothing was destroyed that something needs, and that each key
// opens to what it always did, and only where the states allow it.
func (m *model) checkData(keks map[string]kms.KEK) {
	m.t.Helper()
	observer := m.process()
	for _, key := range m.bucketKeys() {
		kek := keks[key.KEK]
		for _, ref := range append([]kms.KeyRef{{Name: key.KEK, Version: key.KEKVersion}}, key.Stale...) {
			if _, err := m.vault.key(ref); err != nil {
				m.fail("%s is gone, and bucket key %s needs it", ref, key.ID)
			}
		}
		v := kek.Version(key.KEKVersion)
		usable := (v.State == kms.Active || v.State == kms.Deactivated || v.State == kms.Compromised) &&
			!kek.Blocked && v.Destruction == nil && v.Number >= kek.MinDecryption
		open, err := observer.BucketKey(m.t.Context(), key.Space, key.ID)
		if usable != (err == nil) || !usable && !errors.Is(err, kms.ErrDisabled) {
			m.fail("%s under %s (%s): %v", key.ID, kek.Ref(v.Number), v.State, err)
		}
		if want := m.secrets[key.ID]; err == nil && want != nil && !bytes.Equal(bytesOf(open.Key), want) {
			m.fail("%s opens to something else", key.ID)
		}
	}
	for _, key := range listOf[kms.AccessKey](m, "accesskeys/") {
		if _, err := m.vault.key(kms.KeyRef{Name: key.KEK, Version: key.KEKVersion}); err != nil {
			m.fail("%s.v%d is gone, and access key %s needs it", key.KEK, key.KEKVersion, key.ID)
		}
	}
}

// alive is a process that lives: the one of the index, or its successor.
func (m *model) alive(i int) *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.procs[i].isDead() {
		m.procs[i] = m.process()
	}
	return m.procs[i]
}

// sequences are how many random sequences of commands are tried, and how long.
func sequences() (count, length int) {
	if testing.Short() {
		return 10, 200
	}
	return 25, 200
}

func TestNoSequenceOfCommandsAndCrashesBreaksAKEK(t *testing.T) {
	count, length := sequences()
	done := map[string]int{}
	for seed := range uint64(count) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t, seed, 3)
			all := m.commands()
			for range length {
				p := m.alive(m.random.IntN(len(m.procs)))
				if m.random.IntN(4) == 0 {
					p.arm(1 + m.random.IntN(8))
				}
				c := all[m.random.IntN(len(all))]
				err := c.do(t.Context(), m.random, p)
				m.log = append(m.log, fmt.Sprintf("%s: %v", c.name, err))
				if !inContract(err) {
					m.fail("%s: %v", c.name, err)
				}
				p.arm(0)
				if err == nil {
					done[c.name]++
				}
				m.check()
			}
			for _, k := range m.before {
				for _, v := range k.Versions {
					done[string(v.State)]++
				}
			}
		})
	}
	t.Logf("%d sequences of %d commands: %v", count, length, done)
	// A test of states that are never reached shows nothing.
	for _, want := range []string{
		"create", "rotate", "block", "unblock", "compromise", "destroy", "restore", "deactivate", "set", "rewrap",
		string(kms.Active), string(kms.Suspended), string(kms.Deactivated), string(kms.Compromised), string(kms.Destroyed),
	} {
		if done[want] < 1 {
			t.Errorf("%q happened %d times only", want, done[want])
		}
	}
}

func TestNoConcurrentCommandsAndCrashesBreakAKEK(t *testing.T) {
	count, length := sequences()
	for seed := range uint64(count) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t, 1000+seed, 4)
			var group sync.WaitGroup
			for range length / 20 {
				for i := range m.procs {
					p := m.alive(i)
					random := mathrand.New(mathrand.NewPCG(m.random.Uint64(), 1))
					group.Go(func() {
						all := m.commands()
						if random.IntN(3) == 0 {
							p.arm(1 + random.IntN(20))
						}
						for range 5 {
							c := all[random.IntN(len(all))]
							if err := c.do(t.Context(), random, p); !inContract(err) {
								t.Errorf("seed %d: %s: %v", m.seed, c.name, err)
							}
						}
						p.arm(0)
					})
				}
				group.Wait()
				m.check()
			}
		})
	}
}
