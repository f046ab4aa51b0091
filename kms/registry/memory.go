package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"chatelaine/kms"
)

// Memory is a kms.Registry that forgets everything with the process. It is for
// tests of what stands on a registry; it passes the same tests as etcd.
type Memory struct {
	mu       sync.Mutex
	revision int64
	items    map[string]kms.Item
	history  []kms.Event
	changed  chan struct{} // closed and replaced by each commit
}

var _ kms.Registry = (*Memory)(nil)

// NewMemory makes an empty registry.
func NewMemory() *Memory {
	return &Memory{items: make(map[string]kms.Item), changed: make(chan struct{})}
}

// Exclusive says that no other process can use this registry.
func (m *Memory) Exclusive() bool { return true }

// Get implements kms.Registry.
func (m *Memory) Get(ctx context.Context, key string) (kms.Item, error) {
	if err := ctx.Err(); err != nil {
		return kms.Item{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.items[key]
	if !ok {
		return kms.Item{}, fmt.Errorf("registry: reading %q: %w", key, kms.ErrNotFound)
	}
	return clone(i), nil
}

// List implements kms.Registry.
func (m *Memory) List(ctx context.Context, prefix string) ([]kms.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []kms.Item
	for _, key := range m.keys(prefix) {
		out = append(out, clone(m.items[key]))
	}
	return out, nil
}

// keys is the sorted keys with a prefix.
func (m *Memory) keys(prefix string) []string {
	all := slices.Sorted(maps.Keys(m.items))
	return slices.DeleteFunc(all, func(key string) bool { return !strings.HasPrefix(key, prefix) })
}

// Commit implements kms.Registry.
func (m *Memory) Commit(ctx context.Context, t kms.Transaction) error {
	if err := cmp.Or(ctx.Err(), t.Validate()); err != nil {
		return fmt.Errorf("registry: committing: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range t.If {
		if m.items[c.Key].Revision != c.Revision {
			return fmt.Errorf("registry: committing: %w", kms.ErrConflict)
		}
	}
	m.apply(t)
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

func (m *Memory) apply(t kms.Transaction) {
	m.revision++
	for _, i := range t.Put {
		i = clone(i)
		i.Revision = m.revision
		m.items[i.Key] = i
		m.history = append(m.history, kms.Event{Item: i})
	}
	for _, key := range t.Delete {
		m.remove(key)
	}
	for _, prefix := range t.DeletePrefix {
		for _, key := range m.keys(prefix) {
			m.remove(key)
		}
	}
}

func (m *Memory) remove(key string) {
	if _, ok := m.items[key]; !ok {
		return
	}
	delete(m.items, key)
	m.history = append(m.history, kms.Event{Item: kms.Item{Key: key, Revision: m.revision}, Deleted: true})
}

// Revision implements kms.Registry.
func (m *Memory) Revision(ctx context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision, ctx.Err()
}

// Watch implements kms.Registry. No history is ever compacted.
func (m *Memory) Watch(ctx context.Context, prefix string, after int64, f func(kms.Event) error) error {
	for next := 0; ; {
		m.mu.Lock()
		events, changed := m.history[next:], m.changed
		m.mu.Unlock()
		next += len(events)
		for _, e := range events {
			if e.Revision <= after || !strings.HasPrefix(e.Key, prefix) {
				continue
			}
			if err := f(kms.Event{Item: clone(e.Item), Deleted: e.Deleted}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Usage implements kms.Registry. There is no quota.
func (m *Memory) Usage(ctx context.Context) (kms.Usage, error) { return kms.Usage{}, ctx.Err() }

// Check implements kms.Registry.
func (m *Memory) Check(ctx context.Context) error { return ctx.Err() }

func clone(i kms.Item) kms.Item {
	i.Value = slices.Clone(i.Value)
	return i
}
