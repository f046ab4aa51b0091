package transit

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"chatelaine/kms"
)

// texts are what Vault and OpenBao say with status 400. They say why in words alone.
func texts() []struct {
	part string
	is   error
} {
	return []struct {
		part string
		is   error
	}{
		{"encryption key not found", kms.ErrNotFound},
		{"no existing key named", kms.ErrNotFound},
		{"could not delete key; not found", kms.ErrNotFound},
		{"unknown key type none", kms.ErrNotFound}, // see Wrap
		{"message authentication failed", kms.ErrCorrupt},
		{"invalid ciphertext", kms.ErrCorrupt},
		{"disallowed by policy (too old)", kms.ErrDisabled},
		{"less than the minimum encryption key version", kms.ErrDisabled},
		{"soft-deleted", kms.ErrDisabled},
	}
}

// translate puts the contract's sentinel before an error of Vault's client. What Vault
// says is kept; the client's own text is not, as it has the whole request's address.
func translate(err error) error {
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		return fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
	}
	said := answered{status: answer.StatusCode, text: said(answer)}
	switch {
	case answer.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w: %w", kms.ErrDenied, said)
	case answer.StatusCode == http.StatusNotFound && len(answer.Errors) == 0:
		return fmt.Errorf("%w: %w", kms.ErrNotFound, said)
	case answer.StatusCode == http.StatusBadRequest:
		for _, t := range texts() {
			if strings.Contains(said.text, t.part) {
				return fmt.Errorf("%w: %w", t.is, said)
			}
		}
	}
	// Sealed (503), standby, too many requests (429), an engine that is not mounted
	// (404 with a text), and what we do not know: all may be mended in Vault.
	return fmt.Errorf("%w: %w", kms.ErrUnavailable, said)
}

// answered is what Vault answered instead of an answer.
type answered struct {
	status int
	text   string
}

func (e answered) Error() string {
	if e.text == "" {
		return fmt.Sprintf("Vault answered %d", e.status)
	}
	return fmt.Sprintf("Vault answered %d: %s", e.status, e.text)
}

// said is what Vault says, in one line of some length.
func said(answer *api.ResponseError) string {
	if answer.RawError {
		return "" // a page of something in between
	}
	line := strings.Join(strings.Fields(strings.Join(slices.Clone(answer.Errors), "; ")), " ")
	return line[:min(len(line), 300)]
}

func forbidden(err error) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden
}
