package kms

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Replica is what a process of the KMS tells others that share its registry: that it
// gives leases, and how far those who hold them have heard of what was revoked.
type Replica struct {
	ID   string `json:"id"`   // one for each start of the process
	Name string `json:"name"` // for people
	// Lease is how long its leases run.
	Lease time.Duration `json:"lease"`
	// Beat grows each time that it says so. Under one beat, leases are given for a
	// third of Lease only.
	Beat uint64 `json:"beat"`
	// Told is the revocation epoch that it tells of.
	Told uint64 `json:"told"`
	// Gateways are the holders of its leases when it learned of that epoch, perhaps
	// with some that came later, and so with that knowledge.
	Gateways []Hearing `json:"gateways,omitempty"`
}

// Hearing says whether a gateway has acted on a revocation.
type Hearing struct {
	Gateway string        `json:"gateway"` // its name for itself
	Peer    string        `json:"peer"`    // the name that it is known by
	Heard   bool          `json:"heard"`
	Took    time.Duration `json:"took"`             // from when the KMS knew, where it was heard
	Left    time.Duration `json:"left"`             // of the lease and the margin, where it was not
	Canary  CanaryState   `json:"canary,omitempty"` // what it said of the canary
}

func replicaPath(id string) string { return "replicas/" + id }

// ID tells this Manager from all others that share its registry, now or ever.
func (m *Manager) ID() string { return m.id }

// WriteReplica records a replica, whatever was recorded of it before.
func (m *Manager) WriteReplica(ctx context.Context, r Replica) error {
	item, err := put(replicaPath(r.ID), r)
	if err == nil {
		err = m.registry.Commit(ctx, Transaction{Put: []Item{item}})
	}
	if err != nil {
		return fmt.Errorf("kms: recording replica %q: %w", r.ID, err)
	}
	return nil
}

// Replicas lists those that are recorded, this one among them if it is.
func (m *Manager) Replicas(ctx context.Context) ([]Replica, error) {
	all, err := list[Replica](ctx, m.registry, replicaPath(""))
	if err != nil {
		return nil, fmt.Errorf("kms: listing replicas: %w", err)
	}
	return records(all), nil
}

// WatchReplicas calls f when a replica may have changed: once when every later
// change is sure to be seen, and then after each. Errors are those of Registry.Watch.
func (m *Manager) WatchReplicas(ctx context.Context, f func() error) error {
	return m.follow(ctx, replicaPath(""), func(Event) error { return f() }, f)
}

// ForgetReplica removes the record of a replica that is gone, unless it has said
// anything since beat. It may be said again.
func (m *Manager) ForgetReplica(ctx context.Context, id string, beat uint64) error {
	s, err := read[Replica](ctx, m.registry, replicaPath(id))
	if err == nil && s.record.Beat == beat {
		err = m.registry.Commit(ctx, Transaction{If: []Condition{s.is}, Delete: []string{s.is.Key}})
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("kms: forgetting replica %q: %w", id, err)
	}
	return nil
}
