// Package hsmtest makes fresh SoftHSM tokens for tests. It refuses to know what
// they are used for, and is of no use outside of tests.
//
// SoftHSM reads its token folder from SOFTHSM2_CONF when the module is initialised,
// and both the variable and C_Initialize belong to the whole process. So each test
// gets a folder of its own and sets the variable with Setenv, which the testing
// package refuses in parallel tests, and whatever the test opened it closes before
// it ends: then the next test's C_Initialize sees the next folder.
package hsmtest

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"chatelaine/hsm"
)

const (
	// Label is the label of the token that Token makes.
	Label = "chatelaine-test"
	// PIN is the user PIN of every token made here.
	PIN = "83741952"
	// SOPIN is the security officer's PIN of every token made here.
	SOPIN = "16072851"
)

// Folder is a token folder of SoftHSM. It is not for concurrent use.
type Folder struct {
	Dir    string // where the tokens are; moving it away is unplugging them
	Conf   string // the file that SOFTHSM2_CONF names
	Module string // path of the SoftHSM library
	tb     testing.TB
}

// New makes an empty token folder and points SOFTHSM2_CONF at it until the test
// ends. Without SoftHSM the test is skipped, or fails where the variable CI is set.
func New(tb testing.TB) *Folder {
	tb.Helper()
	f := &Folder{Module: Module(tb), tb: tb}
	base := tb.TempDir()
	f.Dir = filepath.Join(base, "tokens")
	f.Conf = filepath.Join(base, "softhsm2.conf")
	if err := os.Mkdir(f.Dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", f.Dir)
	if err := os.WriteFile(f.Conf, []byte(conf), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Setenv("SOFTHSM2_CONF", f.Conf)
	return f
}

// Token adds a token of the given label and returns how to open it. The module must
// not be open in this process meanwhile.
func (f *Folder) Token(label string) hsm.Config {
	f.tb.Helper()
	if err := hsm.InitToken(f.Module, label, hsm.NewPIN(SOPIN), hsm.NewPIN(PIN)); err != nil {
		f.tb.Fatal(err)
	}
	return hsm.Config{Module: f.Module, Token: hsm.Selector{Label: label}, PIN: hsm.NewPIN(PIN)}
}

// Clone makes a copy of a token with all its keys, as vendors' tools do, under another
// label of the same length. The module must not be open in this process meanwhile.
func (f *Folder) Clone(label, as string) hsm.Config {
	f.tb.Helper()
	files, err := filepath.Glob(filepath.Join(f.Dir, "*", "token.object"))
	if err != nil || len(label) != len(as) {
		f.tb.Fatalf("cloning %q as %q: %v", label, as, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.tb.Fatal(err)
		}
		// SoftHSM keeps label and serial number as they are, the label with spaces. It
		// makes the slot's number of the serial number's end.
		from, to := fmt.Sprintf("%-32s", label), fmt.Sprintf("%-32s", as)
		if !bytes.Contains(text, []byte(from)) {
			continue
		}
		copied := filepath.Join(f.Dir, "clone-"+as)
		if err := os.CopyFS(copied, os.DirFS(filepath.Dir(file))); err != nil {
			f.tb.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte(from), []byte(to))
		text = serial().ReplaceAll(text, fmt.Appendf(nil, "${1}%08x", crc32.ChecksumIEEE([]byte(as))))
		if err := os.WriteFile(filepath.Join(copied, "token.object"), text, 0o600); err != nil {
			f.tb.Fatal(err)
		}
		return hsm.Config{Module: f.Module, Token: hsm.Selector{Label: as}, PIN: hsm.NewPIN(PIN)}
	}
	f.tb.Fatalf("cloning: there is no token %q", label)
	return hsm.Config{}
}

// serial finds SoftHSM's serial numbers.
func serial() *regexp.Regexp { return regexp.MustCompile(`([0-9a-f]{8})[0-9a-f]{8}`) }

// Token makes a folder with one token, labelled Label.
func Token(tb testing.TB) hsm.Config {
	tb.Helper()
	return New(tb).Token(Label)
}

// Open makes a folder with one token and opens it until the test ends.
func Open(tb testing.TB) *hsm.Token {
	tb.Helper()
	token, err := hsm.Open(tb.Context(), Token(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := token.Close(); err != nil {
			tb.Error(err)
		}
	})
	return token
}

// Module is the path of the SoftHSM library: what CHATELAINE_SOFTHSM_MODULE says, or
// where Debian and others install it.
func Module(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("CHATELAINE_SOFTHSM_MODULE"); path != "" {
		return path
	}
	for _, path := range []string{
		"/usr/lib/softhsm/libsofthsm2.so",
		"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
		"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
		"/usr/lib64/pkcs11/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so",
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	const missing = "SoftHSM is not installed: apt-get install softhsm2, or set CHATELAINE_SOFTHSM_MODULE"
	if os.Getenv("CI") != "" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
	return ""
}
