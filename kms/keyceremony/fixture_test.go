package keyceremony

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
	"chatelaine/kms/pkcs11"
)

// person has a key that depends on the name alone.
type person struct {
	name    string
	private ed25519.PrivateKey
}

func named(name string) person {
	seed := sha256.Sum256([]byte(name))
	return person{name, ed25519.NewKeyFromSeed(seed[:])}
}

func (p person) line() string {
	return "ed25519:" + base64.StdEncoding.EncodeToString(p.private.Public().(ed25519.PublicKey))
}

func (p person) sign(message []byte) string {
	return "ed25519:" + base64.StdEncoding.EncodeToString(ed25519.Sign(p.private, message)) + "\n"
}

func (p person) witness(t testing.TB) Witness {
	t.Helper()
	w, err := NewWitness(p.name, p.line())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func witnesses(t testing.TB, people ...string) []Witness {
	t.Helper()
	var out []Witness
	for _, name := range people {
		out = append(out, named(name).witness(t))
	}
	return out
}

// sample is a record that no device was needed for.
func sample(t testing.TB) *Record {
	t.Helper()
	at := time.Date(2026, 8, 3, 10, 0, 0, 0, time.UTC)
	return &Record{
		Version: 1, ID: "00112233445566778899aabbccddeeff", Tool: "chatelaine test", Reason: "a \"reason\"\nkey \"other\"",
		Started: at, Ended: at.Add(time.Minute),
		Module: Module{Path: "/m.so", File: "/m.so.1", SHA256: "ab", Manufacturer: "M", Description: "D", Version: "1.0", Cryptoki: "2.40"},
		Token:  Token{Label: "kms", Manufacturer: "M", Model: "K7", Serial: "123", Firmware: "1.2", Slot: 4},
		Keys: []Key{{
			KEK: "main.v1", Label: "p-main.v1", Mechanism: "aes-gcm", URI: "pkcs11:token=kms;object=p-main.v1", Dialect: "takes IVs",
			Objects: []Object{{
				Label: "p-main.v1", Class: "secret key", Type: "AES", Bits: 256,
				Attributes:  []Attribute{{"CKA_SENSITIVE", "true"}, {"CKA_EXTRACTABLE", "false"}},
				CheckValues: []CheckValue{{"CKM_AES_ECB", "a1b2c3"}},
			}},
			Tests: []string{"one", "two"},
		}},
		Witnesses: witnesses(t, "alice", "bob"),
	}
}

// signed is a folder that its witnesses signed.
func signed(t testing.TB, r *Record) Files {
	t.Helper()
	text, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	f := Files{Record: text, Statement: r.Statement(), Signatures: map[string]string{}}
	for _, w := range r.Witnesses {
		f.Signatures[w.Name] = named(w.Name).sign(f.Statement)
	}
	return f
}

func (f Files) clone() Files {
	f.Signatures = maps.Clone(f.Signatures)
	return f
}

// plan is one for a fresh token of SoftHSM.
func plan(t testing.TB, keys ...kms.KeyRef) Plan {
	t.Helper()
	return Plan{
		Store: pkcs11.Config{
			HSM: withBits(hsmtest.Token(t)), Prefix: "p-",
			Mechanisms: map[string]hsm.Mechanism{"rsa": hsm.RSAOAEPSHA1, "pair": hsm.AESCBCHMAC, "wrong": hsm.RSAOAEPSHA256},
		},
		Keys: keys, Witnesses: witnesses(t, "alice", "bob"),
		Folder: filepath.Join(t.TempDir(), "ceremony"), Reason: "first keys", Tool: "chatelaine test",
	}
}

func withBits(cfg hsm.Config) hsm.Config {
	cfg.RSABits = 2048
	return cfg
}

func version(name string, number uint32) kms.KeyRef { return kms.KeyRef{Name: name, Version: number} }

// inToken opens the token of a plan for a moment.
func inToken(t testing.TB, p Plan, do func(*hsm.Token)) {
	t.Helper()
	token, err := hsm.Open(t.Context(), p.Store.HSM)
	if err != nil {
		t.Fatal(err)
	}
	do(token)
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
}
