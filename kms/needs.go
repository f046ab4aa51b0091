package kms

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Need is one thing that would be lost with a KEK version, or that names the KEK.
type Need struct {
	Kind    NeedKind `json:"kind"`
	ID      string   `json:"id,omitempty"`     // of the bucket key or the access key
	Bucket  string   `json:"bucket,omitempty"` // whose it is
	Version uint32   `json:"version"`          // of the KEK; 0 where only its name is needed
	// Recovery says of a bucket key whether it could be had without the KEK's provider.
	// It is not in reports.
	Recovery RecoveryState `json:"-"`
}

// NeedKind says what needs a KEK.
type NeedKind string

// The kinds of needs.
const (
	NeedBucketKey NeedKind = "bucket-key"   // a record of the registry is wrapped under it
	NeedMirror    NeedKind = "mirror"       // the copy in the backend may be
	NeedAccessKey NeedKind = "access-key"   // the secret of one is wrapped under it
	NeedInstance  NeedKind = "instance-key" // the key that signs reports is
	NeedBucket    NeedKind = "bucket"       // its next key would be wrapped under it
	NeedDefault   NeedKind = "default"      // it is the KEK that is used where none is named
	// NeedRecoveryCopy: the recovery copy of a bucket key is under it.
	NeedRecoveryCopy NeedKind = "recovery-copy"
	// NeedRecovery: it is the recovery KEK of the configuration.
	NeedRecovery NeedKind = "recovery"
)

// Needs lists what needs a version of a KEK; for version 0, what needs any of them
// or the KEK's name. It reads all bucket keys: tens of thousands take some time.
//
// Once a version wraps no more, nothing comes to need it: each record that is
// wrapped is written only if the KEK's has not changed since.
func (m *Manager) Needs(ctx context.Context, ref KeyRef) ([]Need, error) {
	needs, err := m.needs(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("kms: looking who needs KEK %s: %w", keyName(ref.Name, ref.Version), err)
	}
	return needs, nil
}

func (m *Manager) needs(ctx context.Context, ref KeyRef) ([]Need, error) {
	if err := checkName("KEK", ref.Name); err != nil {
		return nil, err
	}
	buckets, err := m.Buckets(ctx, "")
	if err != nil {
		return nil, err
	}
	var out []Need
	if ref.Version == 0 {
		out = m.needsOfName(ref.Name, buckets)
	}
	keys, err := list[BucketKey](ctx, m.registry, bucketKeysRoot)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, b := range buckets {
		names[b.Space] = b.Name
	}
	home, err := m.RecoveryHome(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range keys {
		out = append(out, s.record.needs(ref, names[s.record.Space], home)...)
	}
	access, err := m.AccessKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range access {
		if ref.covers(k.ref()) {
			out = append(out, Need{Kind: NeedAccessKey, ID: k.ID, Version: k.KEKVersion})
		}
	}
	own, err := readMaybe[instance](ctx, m.registry, instancePath)
	if err == nil && own.exists() && ref.covers(own.record.ref()) {
		out = append(out, Need{Kind: NeedInstance, Version: own.record.KEKVersion})
	}
	return out, err
}

// covers says whether a version is the one named, or one of the KEK where version is 0.
func (r KeyRef) covers(other KeyRef) bool {
	return r.Name == other.Name && (r.Version == 0 || r.Version == other.Version)
}

func (k BucketKey) needs(ref KeyRef, bucket string, home RecoveryHome) []Need {
	var out []Need
	if ref.covers(k.ref()) {
		out = append(out, Need{Kind: NeedBucketKey, ID: k.ID.String(), Bucket: bucket, Version: k.KEKVersion, Recovery: home.State(k)})
	}
	if ref.covers(k.Recovery.ref()) {
		out = append(out, Need{Kind: NeedRecoveryCopy, ID: k.ID.String(), Bucket: bucket, Version: k.Recovery.KEKVersion})
	}
	for _, stale := range k.Stale {
		if ref.covers(stale) {
			out = append(out, Need{Kind: NeedMirror, ID: k.ID.String(), Bucket: bucket, Version: stale.Version})
		}
	}
	return out
}

func (m *Manager) needsOfName(name string, buckets []Bucket) []Need {
	var out []Need
	if name == m.kek {
		out = append(out, Need{Kind: NeedDefault})
	}
	if name == m.recovery.KEK {
		out = append(out, Need{Kind: NeedRecovery})
	}
	for _, b := range buckets {
		if b.KEK == name && b.State != BucketShredded {
			out = append(out, Need{Kind: NeedBucket, Bucket: b.Name})
		}
	}
	return out
}

// namesUnused returns ErrNeeded when something would be wrapped under a KEK next.
func (m *Manager) namesUnused(ctx context.Context, name string) error {
	buckets, err := m.Buckets(ctx, "")
	if err != nil {
		return err
	}
	return asNeeded(m.needsOfName(name, buckets))
}

// unneeded returns ErrNeeded when something would be lost with a KEK or version.
func (m *Manager) unneeded(ctx context.Context, ref KeyRef) error {
	needs, err := m.needs(ctx, ref)
	if err != nil {
		return err
	}
	return asNeeded(needs)
}

// asNeeded counts needs by kind.
func asNeeded(needs []Need) error {
	if len(needs) == 0 {
		return nil
	}
	counts := map[NeedKind]int{}
	for _, n := range needs {
		counts[n.Kind]++
	}
	var texts []string
	for kind, n := range counts {
		texts = append(texts, fmt.Sprintf("%d of kind %s", n, kind))
	}
	slices.Sort(texts)
	return fmt.Errorf("%w: %s", ErrNeeded, strings.Join(texts, ", "))
}
