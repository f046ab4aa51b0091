package kms

import "context"

// LookAtUsage looks at how full the registry is, as Run does every few seconds.
func (m *Manager) LookAtUsage(ctx context.Context) { m.lookAtUsage(ctx) }

// RecoveryLabel is the label of a mirror's recovery copy, for tests that forge one.
func RecoveryLabel(m Mirror, fingerprint string) []byte { return recoveryLabel(m.key(), fingerprint) }

// RecoveryMessage is what is signed of a recovery copy.
func RecoveryMessage(label, wrapped []byte) []byte { return recoveryMessage(label, wrapped) }
