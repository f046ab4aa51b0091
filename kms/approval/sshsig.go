package approval

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/ssh"

	"chatelaine/kms"
)

// Namespace is what signatures are made for: `ssh-keygen -Y sign -n chatelaine`. One
// that was made for another purpose, such as a git commit, is refused.
const Namespace = "chatelaine"

// maxSignature is the longest signature in bytes; real ones have about 300.
const maxSignature = 4 << 10

const (
	sshsigMagic = "SSHSIG"
	sshsigArmor = "SSH SIGNATURE"
)

// sshsig is the blob of an SSH signature after its magic (OpenSSH's PROTOCOL.sshsig).
type sshsig struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// parseSSHSig reads an armored signature and the public key in it. Nothing of it is
// to be believed before verify.
func parseSSHSig(armored []byte) (sshsig, ssh.PublicKey, error) {
	var s sshsig
	armored = bytes.TrimSpace(armored)
	block, rest := pem.Decode(armored)
	if len(armored) > maxSignature || block == nil || block.Type != sshsigArmor || len(block.Headers) > 0 ||
		len(bytes.TrimSpace(rest)) > 0 || !bytes.HasPrefix(armored, []byte("-----BEGIN "+sshsigArmor)) {
		return s, nil, fmt.Errorf("%w: it is no SSH signature; make it with `ssh-keygen -Y sign -n %s`", kms.ErrInvalid, Namespace)
	}
	blob, ok := bytes.CutPrefix(block.Bytes, []byte(sshsigMagic))
	if !ok {
		return s, nil, fmt.Errorf("%w: the SSH signature has no magic", kms.ErrInvalid)
	}
	if err := ssh.Unmarshal(blob, &s); err != nil {
		return s, nil, fmt.Errorf("%w: the SSH signature is cut: %w", kms.ErrInvalid, err)
	}
	public, err := ssh.ParsePublicKey(s.PublicKey)
	if err != nil || !acceptable(public) {
		return s, nil, fmt.Errorf("%w: the SSH signature is by a key of another type than Ed25519", kms.ErrInvalid)
	}
	if s.Version != 1 || s.Namespace != Namespace {
		return s, nil, fmt.Errorf("%w: the SSH signature has version %d and namespace %q; want 1 and %q",
			kms.ErrInvalid, s.Version, s.Namespace, Namespace)
	}
	return s, public, nil
}

// verify checks the signature over a message under the key that was parsed with it.
func (s sshsig) verify(public ssh.PublicKey, message []byte) error {
	var digest []byte
	switch s.Hash {
	case "sha256":
		sum := sha256.Sum256(message)
		digest = sum[:]
	case "sha512":
		sum := sha512.Sum512(message)
		digest = sum[:]
	default:
		return fmt.Errorf("%w: the SSH signature has hash %q", kms.ErrInvalid, s.Hash)
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(s.Signature, &signature); err != nil {
		return fmt.Errorf("%w: the SSH signature is cut: %w", kms.ErrInvalid, err)
	}
	if public.Type() == ssh.KeyAlgoED25519 && len(signature.Rest) > 0 {
		return fmt.Errorf("%w: the SSH signature has something at its end", kms.ErrInvalid)
	}
	signed := ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Digest                    []byte
	}{s.Namespace, s.Reserved, s.Hash, digest})
	if err := public.Verify(append([]byte(sshsigMagic), signed...), &signature); err != nil {
		return fmt.Errorf("%w: the signature is not over this statement: %w", kms.ErrDenied, err)
	}
	return nil
}
