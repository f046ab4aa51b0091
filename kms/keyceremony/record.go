package keyceremony

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"chatelaine/kms"
)

// recordVersion is the form of Record and of its statement. Another form gets another.
const recordVersion = 1

// Bounds of what is read.
const (
	maxRecord    = 1 << 20 // bytes
	maxKeys      = 64
	maxWitnesses = 32
)

// Record is a ceremony: what was made, where, when and before whom. It is in the
// folder as record.json, and nothing of it is secret.
type Record struct {
	Version int    `json:"version"` // 1
	ID      string `json:"id"`      // 16 random bytes in hex
	Tool    string `json:"tool"`    // the program that held it
	Reason  string `json:"reason,omitempty"`
	// Started and Ended are UTC, in whole seconds, by the clock of the machine.
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended"`
	Module    Module    `json:"module"`
	Token     Token     `json:"token"`
	Keys      []Key     `json:"keys"`
	Witnesses []Witness `json:"witnesses"`
}

// Module is the PKCS#11 library.
type Module struct {
	Path   string `json:"path"`
	File   string `json:"file"` // Path without symbolic links
	SHA256 string `json:"sha256"`
	// What it says of itself.
	Manufacturer string `json:"manufacturer"`
	Description  string `json:"description"`
	Version      string `json:"version"`
	Cryptoki     string `json:"cryptoki"`
}

// Token is what the token says of itself.
type Token struct {
	Label        string `json:"label"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Serial       string `json:"serial"`
	Firmware     string `json:"firmware"`
	Slot         uint   `json:"slot"`
}

// Key is a KEK version that was made, as the token told of it afterwards.
type Key struct {
	KEK       string   `json:"kek"` // "main.v1"
	Label     string   `json:"label"`
	Mechanism string   `json:"mechanism"`
	URI       string   `json:"uri"`
	Dialect   string   `json:"iv_dialect,omitempty"` // who makes IVs, in words
	Objects   []Object `json:"objects"`
	Tests     []string `json:"tests"` // what it passed, in words
}

// Object is one object of a key in the token.
type Object struct {
	Label       string       `json:"label"`
	Class       string       `json:"class"` // "secret key", "private key", "public key"
	Type        string       `json:"type"`  // "AES", "RSA", "generic secret"
	Bits        uint         `json:"bits"`  // 0: it does not say
	Attributes  []Attribute  `json:"attributes"`
	CheckValues []CheckValue `json:"check_values"`
	// PublicKey is the SHA-256 of an RSA key's SubjectPublicKeyInfo, in hex.
	PublicKey string `json:"public_key_sha256,omitempty"`
}

// Attribute is one that is "true", "false" or "unreadable".
type Attribute struct {
	Name  string `json:"name"` // "CKA_SENSITIVE"
	Value string `json:"value"`
}

// CheckValue tells a key from others by three bytes: see hsm.CheckValue.
type CheckValue struct {
	Method string `json:"method"`
	Value  string `json:"value"`
}

func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// encode is the one form of record.json.
func (r *Record) encode() ([]byte, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("keyceremony: writing the record: %w", err)
	}
	return append(text, '\n'), nil
}

// ParseRecord reads record.json, in the one form that it has. ErrInvalid for all else.
func ParseRecord(text []byte) (*Record, error) {
	r, err := parseRecord(text)
	if err != nil {
		return nil, fmt.Errorf("keyceremony: reading the record: %w: %w", kms.ErrInvalid, err)
	}
	return r, nil
}

func parseRecord(text []byte) (*Record, error) {
	if len(text) > maxRecord {
		return nil, fmt.Errorf("it has %d bytes, and may have %d", len(text), maxRecord)
	}
	r := &Record{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, err
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	// A name twice, another spelling, something at the end: other readers might see
	// another record in it.
	again, err := r.encode()
	if err == nil && !bytes.Equal(again, text) {
		err = fmt.Errorf("it is not in the form in which it was written: %s", difference("it", text, "the form", again))
	}
	return r, err
}

func (r *Record) validate() error {
	id, err := hex.DecodeString(r.ID)
	switch {
	case r.Version != recordVersion:
		return fmt.Errorf("version %d, and this program knows %d", r.Version, recordVersion)
	case err != nil || len(id) != 16 || strings.ToLower(r.ID) != r.ID:
		return fmt.Errorf("id %q: want 32 hex digits", r.ID)
	case r.Ended.Before(r.Started) || !whole(r.Started) || !whole(r.Ended):
		return fmt.Errorf("times %v and %v: want UTC in whole seconds, and the end after the start", r.Started, r.Ended)
	case len(r.Keys) == 0 || len(r.Keys) > maxKeys:
		return fmt.Errorf("%d keys: want 1 to %d", len(r.Keys), maxKeys)
	}
	for _, k := range r.Keys {
		if _, err := kms.ParseKeyRef(k.KEK); err != nil {
			return err
		}
	}
	return checkWitnesses(r.Witnesses)
}

func whole(t time.Time) bool { return t.Equal(t.Truncate(time.Second)) && t.Location() == time.UTC }
