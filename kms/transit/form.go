package transit

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/api"

	"chatelaine/kms"
)

const (
	keyType   = "aes256-gcm96"
	mechanism = "aes-gcm"
	// form is the first byte of a wrapped secret. After it: 12 bytes IV, ciphertext of
	// kms.Bind(ref, binding, secret), 16 bytes tag, with the associated data
	// Binding.Bytes(ref). They are the bytes that Vault writes in base64.
	form = 0x21
	// version1 begins Vault's own form. Each of our keys wraps with its version 1.
	version1 = "vault:v1:"
	// overhead is what kms.Bind, the form byte, the IV and the tag add.
	overhead = 32 + 1 + 12 + 16
)

// parseCiphertext makes our form of Vault's. plain is the length of what was wrapped.
func parseCiphertext(ciphertext string, plain int) ([]byte, error) {
	encoded, ok := strings.CutPrefix(ciphertext, version1)
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(raw) != 12+plain+16 {
		return nil, fmt.Errorf("%w: Vault's answer is no ciphertext of version 1 for %d bytes", kms.ErrUnavailable, plain)
	}
	return append([]byte{form}, raw...), nil
}

// formatCiphertext makes Vault's form of ours, or says that it is none. What opens in
// Vault has one form here: nobody else reads the base64.
func formatCiphertext(wrapped []byte) (string, bool) {
	if len(wrapped) <= overhead || len(wrapped) > overhead+kms.MaxSecret || wrapped[0] != form {
		return "", false
	}
	return version1 + base64.StdEncoding.EncodeToString(wrapped[1:]), true
}

// text is a field of an answer, empty where there is none.
func text(answer *api.Secret, field string) string {
	if answer == nil {
		return ""
	}
	s, _ := answer.Data[field].(string)
	return s
}

// number reads what JSON has as a number, 0 where it has none.
func number(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return i
}
