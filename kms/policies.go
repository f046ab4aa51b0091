package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// PolicyDocument is a set of access policies as people write it. What its language
// is, Config.CheckPolicy knows.
type PolicyDocument struct {
	Policies []byte `json:"policies"` // text
	Entities []byte `json:"entities"` // JSON; may be empty
}

// MaxPolicy is the longest text of policies, and of entities, in bytes.
const MaxPolicy = 256 << 10

// Text is both parts as one text that people can read, with their lengths in its first
// line: what approvers are shown, and what the digest is of.
func (d PolicyDocument) Text() []byte {
	text := fmt.Appendf(nil, "chatelaine access policies: %d bytes of policies, then %d bytes of entities\n", len(d.Policies), len(d.Entities))
	return append(append(text, d.Policies...), d.Entities...)
}

// Digest is the SHA-256 of Text, in hex.
func (d PolicyDocument) Digest() string {
	sum := sha256.Sum256(d.Text())
	return hex.EncodeToString(sum[:])
}

// PolicySet is a version of the access policies.
type PolicySet struct {
	Version  uint64    `json:"version"` // from 1, by 1; 0: none was ever put
	Digest   string    `json:"digest"`  // of the document
	Created  time.Time `json:"created"`
	Actor    string    `json:"actor"`
	Reason   string    `json:"reason,omitempty"`
	Approval string    `json:"approval,omitempty"`
}

// PolicyResource names the access policies to rules of dual control.
const PolicyResource = "policy"

// Texts are records of their own, so that the history can be listed without them.
const currentPolicyPath = "policy"

func policyPath(version uint64) string     { return fmt.Sprintf("policies/%020d", version) }
func policyTextPath(version uint64) string { return fmt.Sprintf("policytexts/%020d", version) }

// PutPolicies makes a document the one that holds, and lets gateways know at once.
// One that does not pass Config.CheckPolicy is ErrInvalid, and the old stays. The
// document that holds already is not put again. The rules of dual control are asked
// with the document's digest and the version that it replaces, so that what was
// approved cannot undo what others have put since.
func (m *Manager) PutPolicies(ctx context.Context, d PolicyDocument, c Change) (PolicySet, error) {
	err := c.validate()
	if err == nil {
		err = m.CheckPolicy(d)
	}
	var made PolicySet
	if err == nil {
		err = retry(ctx, func() (err error) {
			made, err = m.putPolicies(ctx, d, c)
			return err
		})
	}
	if err != nil {
		return PolicySet{}, fmt.Errorf("kms: putting access policies: %w", err)
	}
	m.log.Info("access policies hold", zap.Uint64("version", made.Version), zap.String("digest", made.Digest), zap.String("actor", made.Actor))
	return made, nil
}

// CheckPolicy says whether PutPolicies would take a document, as far as that is the
// document's fault.
func (m *Manager) CheckPolicy(d PolicyDocument) error {
	if len(d.Policies) > MaxPolicy || len(d.Entities) > MaxPolicy {
		return fmt.Errorf("%w: policies of %d bytes and entities of %d: want at most %d each",
			ErrInvalid, len(d.Policies), len(d.Entities), MaxPolicy)
	}
	if m.checkPolicy == nil {
		return fmt.Errorf("%w: this KMS cannot check policies", ErrDenied)
	}
	return m.checkPolicy(d)
}

func (m *Manager) putPolicies(ctx context.Context, d PolicyDocument, c Change) (PolicySet, error) {
	old, err := readMaybe[PolicySet](ctx, m.registry, currentPolicyPath)
	if err != nil {
		return PolicySet{}, err
	}
	digest := d.Digest()
	if old.exists() && old.record.Digest == digest {
		return old.record, nil
	}
	grant, err := m.gate.Permit(ctx, c.operation(ActionPolicy, PolicyResource, map[string]string{
		"digest": digest, "replaces": strconv.FormatUint(old.record.Version, 10),
	}))
	if err != nil {
		return PolicySet{}, err
	}
	made := PolicySet{
		Version: old.record.Version + 1, Digest: digest, Created: time.Now().UTC(),
		Actor: c.actor(), Reason: c.Reason, Approval: c.Approval,
	}
	puts, err := policyItems(made, d)
	if err != nil {
		return PolicySet{}, err
	}
	t := Transaction{If: append(grant.If, old.is), Put: append(grant.Put, puts...)}
	if err := m.revoke(ctx, &t); err != nil {
		return PolicySet{}, err
	}
	return made, m.registry.Commit(ctx, t)
}

func policyItems(s PolicySet, d PolicyDocument) ([]Item, error) {
	current, err := put(currentPolicyPath, s)
	version, err2 := put(policyPath(s.Version), s)
	text, err3 := put(policyTextPath(s.Version), d)
	return []Item{current, version, text}, errors.Join(err, err2, err3)
}

// CurrentPolicies is the version that holds. Version 0 says that none was ever put;
// its document is empty.
func (m *Manager) CurrentPolicies(ctx context.Context) (PolicySet, PolicyDocument, error) {
	s, err := readMaybe[PolicySet](ctx, m.registry, currentPolicyPath)
	if err != nil {
		return PolicySet{}, PolicyDocument{}, fmt.Errorf("kms: reading the access policies: %w", err)
	}
	if !s.exists() {
		return PolicySet{}, PolicyDocument{}, nil
	}
	return m.policyText(ctx, s.record)
}

// Policies is a version of the access policies, or ErrNotFound.
func (m *Manager) Policies(ctx context.Context, version uint64) (PolicySet, PolicyDocument, error) {
	s, err := read[PolicySet](ctx, m.registry, policyPath(version))
	if err != nil {
		return PolicySet{}, PolicyDocument{}, fmt.Errorf("kms: reading version %d of the access policies: %w", version, err)
	}
	return m.policyText(ctx, s.record)
}

// policyText reads the document of a version, and makes sure that it is that one: a
// registry that lost half of it must not decide who may do what.
func (m *Manager) policyText(ctx context.Context, s PolicySet) (PolicySet, PolicyDocument, error) {
	d, err := read[PolicyDocument](ctx, m.registry, policyTextPath(s.Version))
	if errors.Is(err, ErrNotFound) || err == nil && d.record.Digest() != s.Digest {
		err = fmt.Errorf("%w: the text is not that of digest %s", ErrCorrupt, s.Digest)
	}
	if err != nil {
		return PolicySet{}, PolicyDocument{}, fmt.Errorf("kms: reading version %d of the access policies: %w", s.Version, err)
	}
	return s, d.record, nil
}

// PolicyHistory lists all versions that were put, the first first.
func (m *Manager) PolicyHistory(ctx context.Context) ([]PolicySet, error) {
	all, err := list[PolicySet](ctx, m.registry, "policies/")
	if err != nil {
		return nil, fmt.Errorf("kms: listing the access policies: %w", err)
	}
	return records(all), nil
}
