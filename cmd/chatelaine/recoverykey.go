package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.uber.org/zap"

	"chatelaine/gateway/objects"
	"chatelaine/kms"
	"chatelaine/kms/config"
	"chatelaine/kms/offline"
	"chatelaine/kms/service/kmsv1"
)

// recoveryConfig is what the KMS wraps bucket keys under for a recovery.
func recoveryConfig(c *config.Recovery) (kms.RecoveryConfig, error) {
	if c == nil || c.PublicKey == "" {
		return kms.RecoveryConfig{KEK: c.Name()}, nil
	}
	key, err := offline.ParsePublicKey([]byte(c.PublicKey))
	if err != nil {
		return kms.RecoveryConfig{}, usageError{err}
	}
	return kms.RecoveryConfig{Key: key}, nil
}

// ensureRecovery makes the recovery KEK, where there is to be one, and tells what
// there is.
func ensureRecovery(ctx context.Context, manager *kms.Manager, c *config.Recovery, recovery kms.RecoveryConfig, logger *zap.Logger) error {
	if recovery.Key != nil {
		logger.Info("bucket keys have recovery copies under an offline key", zap.String("fingerprint", recovery.Key.Fingerprint()))
	}
	if recovery.KEK == "" {
		return nil
	}
	kek, err := manager.EnsureRecoveryKEK(ctx, c.Provider)
	if err != nil {
		return err
	}
	logger.Info("bucket keys have recovery copies with another provider", zap.Stringer("key", kek.Ref(kek.Primary)), zap.String("provider", kek.Provider))
	return nil
}

// maxKeyFile is over the longest private key in PEM.
const maxKeyFile = 64 << 10

// readRecoveryKey reads the offline key from a file, or from in for "-". It does not ask
// for passphrases: what made the key takes them off, and into a pipe.
func readRecoveryKey(name string, in io.Reader) (*offline.PrivateKey, error) {
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, usageError{err}
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, maxKeyFile))
	if err != nil {
		return nil, usageError{err}
	}
	key, err := offline.ParsePrivateKey(text)
	switch {
	case errors.Is(err, offline.ErrEncrypted):
		return nil, advise(usageError{err}, "have openssl ask for it, and write the key nowhere: openssl pkey -in FILE | chatelaine recover --recovery-key - ...")
	case err != nil:
		return nil, advise(usageError{err}, "--recovery-key wants the RSA private key in PEM whose public one the lost KMS had as recovery.public_key")
	}
	return key, nil
}

// opener opens recovery copies on this machine, so that the KMS never has the key.
type opener struct {
	key     *offline.PrivateKey
	signers []string
	refused map[string][]*kmsv1.MirrorProblem // by bucket
}

// open answers the message of a mirror that it has opened, or takes note of why not.
func (o *opener) open(bucket, name string, record []byte) *kmsv1.RecoverMirror {
	mirror, err := kms.ParseMirror(record)
	var secret kms.Secret
	if err == nil {
		secret, err = mirror.OpenRecovery(o.key, o.signers)
	}
	if errors.Is(err, kms.ErrDenied) {
		err = fmt.Errorf("%w: if that is what `chatelaine report key` showed of the lost KMS, name it with --signer", err)
	}
	if err != nil {
		o.refused[bucket] = append(o.refused[bucket], &kmsv1.MirrorProblem{Mirror: name, Problem: err.Error()})
		return nil
	}
	message := &kmsv1.RecoverMirror{Name: name, Record: record}
	secret.Use(func(b []byte) { message.Opened = b })
	return message
}

// addTo puts what was refused here into the KMS's answer.
func (o *opener) addTo(answer *kmsv1.RecoverResponse) {
	for _, b := range answer.GetBuckets() {
		refused := o.refused[b.GetName()]
		if len(refused) == 0 {
			continue
		}
		answer.Clean = false
		b.Refused = append(b.Refused, refused...)
		if b.GetOutcome() == string(kms.RecoveryNothing) && b.GetKnownKeys() == 0 {
			b.Outcome, b.Problem = string(kms.RecoveryConflict), "none of its keys could be opened"
		}
	}
}

// mirror is the message of one mirror, or nil for one that was refused here.
func (r *recovery) mirror(bucket, key string, record []byte) *kmsv1.RecoverMirror {
	name := strings.TrimPrefix(key, objects.MirrorPrefix)
	if r.opener != nil {
		return r.opener.open(bucket, name, record)
	}
	return &kmsv1.RecoverMirror{Name: name, Record: record}
}

// prepareOpener reads the offline key, where it is to be used.
func (r *recovery) prepareOpener(in io.Reader) error {
	switch {
	case r.recoveryKey != "" && r.recoveryKEK:
		return usageError{errors.New("--recovery-key and --recovery-kek are two ways: say one")}
	case r.recoveryKey == "" && len(r.signers) > 0:
		return usageError{errors.New("--signer has a meaning with --recovery-key alone")}
	case r.recoveryKey == "":
		return nil
	}
	key, err := readRecoveryKey(r.recoveryKey, in)
	if err != nil {
		return err
	}
	r.opener = &opener{key: key, signers: r.signers, refused: map[string][]*kmsv1.MirrorProblem{}}
	return nil
}
