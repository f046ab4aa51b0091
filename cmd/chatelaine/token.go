package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"

	kmsconfig "chatelaine/kms/config"
)

const tokenLabel = "chatelaine"

// errNoKeys is a data folder whose keys are not where they were.
var errNoKeys = errors.New("keys are missing")

// softHSM is SoftHSM with its token in the data folder: for development, since the
// token is files and its PIN lies beside them.
type softHSM struct {
	home   *home
	module string
}

// prepare finds the module and the token, and makes the token on the first start of
// all. It returns what the KMS's configuration and environment need.
func (s *softHSM) prepare(ctx context.Context, executable string) (kmsconfig.Provider, []string, error) {
	module, err := findSoftHSM()
	if err != nil {
		return kmsconfig.Provider{}, nil, err
	}
	s.module = module
	there, err := notEmpty(s.tokens(s.home.token()))
	if err != nil {
		return kmsconfig.Provider{}, nil, err
	}
	if !there {
		if err := mayMakeKeys(s.home, s.home.token(), "softhsm", s.home.softKey(), "softkey"); err != nil {
			return kmsconfig.Provider{}, nil, err
		}
		if err := s.make(ctx, executable); err != nil {
			return kmsconfig.Provider{}, nil, err
		}
	}
	// Written at each start: the folder may have moved.
	if err := s.writeConf(s.home.token()); err != nil {
		return kmsconfig.Provider{}, nil, err
	}
	return kmsconfig.Provider{PKCS11: &kmsconfig.PKCS11{
		Module: s.module, Token: tokenLabel, PINFile: filepath.Join(s.home.token(), "pin"),
	}}, []string{s.environment(s.home.token())}, nil
}

// mayMakeKeys refuses to make keys where there is state that depends on others: new
// ones would open none of it, and hide that the old ones have to be found. The folder
// is where this kind of keys lies, rival where the other kind would.
func mayMakeKeys(h *home, folder, kind, rival, rivalKind string) error {
	state, err := h.hasState()
	if err != nil || !state {
		return err
	}
	if other, _ := notEmpty(rival); other {
		return usageError{fmt.Errorf("%w: %q is not there; this data folder was made with --kek %s: use that again", errNoKeys, folder, rivalKind)}
	}
	return fmt.Errorf("%w: the %s folder %q is not there, but the state in %q depends on its keys. "+
		"Without them nothing can be read, and new ones would open nothing. Put the folder back, from a backup if need be. "+
		"To give all data up and begin anew, remove the whole data folder", errNoKeys, kind, folder, h.state())
}

// make makes the token aside and puts it into place whole. The module is loaded in a
// process of its own: no vendor's code, and no PIN, in the gateway's.
func (s *softHSM) make(ctx context.Context, executable string) error {
	aside := s.home.token() + ".new"
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("making the SoftHSM token: %w", err)
	}
	if err := os.MkdirAll(s.tokens(aside), 0o700); err != nil {
		return fmt.Errorf("making the SoftHSM token: %w", err)
	}
	for _, name := range []string{"pin", "so-pin"} {
		if err := writePIN(filepath.Join(aside, name)); err != nil {
			return err
		}
	}
	if err := s.writeConf(aside); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, executable, "kms", "init-token", "--module", s.module, "--label", tokenLabel, //nolint:gosec // G204: ourselves
		"--pin-file", filepath.Join(aside, "pin"), "--so-pin-file", filepath.Join(aside, "so-pin"))
	cmd.Env = append(childEnvironment(), s.environment(aside))
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return &exitError{max(codeOf(err), exitFailure), fmt.Errorf("making the SoftHSM token: %w", err)}
	}
	// An empty folder, or one without tokens, may be in the way.
	if err := os.RemoveAll(s.home.token()); err != nil {
		return fmt.Errorf("making the SoftHSM token: %w", err)
	}
	if err := os.Rename(aside, s.home.token()); err != nil {
		return fmt.Errorf("making the SoftHSM token: %w", err)
	}
	return nil
}

func (s *softHSM) tokens(dir string) string { return filepath.Join(dir, "tokens") }

func (s *softHSM) environment(dir string) string {
	return "SOFTHSM2_CONF=" + filepath.Join(dir, "softhsm2.conf")
}

func (s *softHSM) writeConf(dir string) error {
	text := "# Written anew at each start.\ndirectories.tokendir = " + s.tokens(dir) + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(filepath.Join(dir, "softhsm2.conf"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing SoftHSM's configuration: %w", err)
	}
	return nil
}

// writePIN writes a random PIN of 16 digits.
func writePIN(name string) error {
	n, err := rand.Int(rand.Reader, new(big.Int).Exp(big.NewInt(10), big.NewInt(16), nil))
	if err == nil {
		err = os.WriteFile(name, fmt.Appendf(nil, "%016d\n", n), 0o600)
	}
	if err != nil {
		return fmt.Errorf("making a PIN: %w", err)
	}
	return nil
}

// findSoftHSM looks where Debian, others and CHATELAINE_SOFTHSM_MODULE have it.
func findSoftHSM() (string, error) {
	if named := os.Getenv("CHATELAINE_SOFTHSM_MODULE"); named != "" {
		return named, nil // whether it can be read, loading it will tell
	}
	for _, pattern := range []string{
		"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so",
		"/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", usageError{errors.New("SoftHSM is not installed: apt-get install softhsm2, or name its module in CHATELAINE_SOFTHSM_MODULE; " +
		"or use --kek softkey, which needs nothing and protects less")}
}

// prepareSoftKey is prepare for keys in files.
func prepareSoftKey(h *home) (kmsconfig.Provider, error) {
	there, err := notEmpty(h.softKey())
	if err == nil && !there {
		err = mayMakeKeys(h, h.softKey(), "softkey", h.token(), "softhsm")
	}
	if err != nil {
		return kmsconfig.Provider{}, err
	}
	return kmsconfig.Provider{SoftKey: &kmsconfig.SoftKey{Dir: h.softKey()}}, nil
}
