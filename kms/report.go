package kms

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// Report says of each version of a KEK who still needs it.
type Report struct {
	Chatelaine string          `json:"chatelaine"` // reportKind
	KEK        string          `json:"kek"`
	Primary    uint32          `json:"primary"`
	Created    time.Time       `json:"created"`
	Versions   []VersionReport `json:"versions"` // by number
}

// VersionReport is about one version.
type VersionReport struct {
	Number uint32   `json:"version"`
	State  KeyState `json:"state"`
	// Counts has how many records need it, by kind; empty means that none does.
	Counts map[NeedKind]uint64 `json:"needed_by,omitempty"`
	// Needs are the first maxListed of them.
	Needs []Need `json:"first,omitempty"`
}

const (
	reportKind = "kek-report/1"
	maxListed  = 20
	// MaxReport is the longest signed report, in bytes.
	MaxReport = 4 << 20
)

// Needed says how many records need any version but the primary.
func (r Report) Needed() uint64 {
	var n uint64
	for _, v := range r.Versions {
		if v.Number == r.Primary {
			continue
		}
		for _, count := range v.Counts {
			n += count
		}
	}
	return n
}

// SignedReport is a Report, a ShredStatement or an AdoptionStatement, with an Ed25519 signature of a KMS over its exact bytes.
type SignedReport struct {
	Statement []byte `json:"statement"` // JSON of it; in base64 in JSON
	Key       []byte `json:"key"`       // the signer's public key, 32 bytes
	Signature []byte `json:"signature"` // 64 bytes, of signedMessage
}

// signedMessage keeps reports apart from all else that the key may ever sign.
func signedMessage(statement []byte) []byte {
	return append([]byte("chatelaine report\x00"), statement...)
}

// Report looks who needs which version of a KEK, and signs what it saw.
func (m *Manager) Report(ctx context.Context, kek string) (Report, SignedReport, error) {
	report, signed, err := m.report(ctx, kek)
	if err != nil {
		return Report{}, SignedReport{}, fmt.Errorf("kms: reporting on KEK %q: %w", kek, err)
	}
	return report, signed, nil
}

func (m *Manager) report(ctx context.Context, name string) (Report, SignedReport, error) {
	if err := checkName("KEK", name); err != nil {
		return Report{}, SignedReport{}, err
	}
	kek, err := m.findKEK(ctx, name)
	if err != nil {
		return Report{}, SignedReport{}, err
	}
	needs, err := m.needs(ctx, KeyRef{Name: name})
	if err != nil {
		return Report{}, SignedReport{}, err
	}
	r := newReport(kek.record, needs)
	statement, err := json.Marshal(r)
	if err != nil {
		return Report{}, SignedReport{}, err
	}
	public, signature, err := m.sign(ctx, signedMessage(statement))
	return r, SignedReport{Statement: statement, Key: public, Signature: signature}, err
}

func newReport(kek KEK, needs []Need) Report {
	r := Report{Chatelaine: reportKind, KEK: kek.Name, Primary: kek.Primary, Created: time.Now().UTC()}
	for _, v := range kek.Versions {
		of := VersionReport{Number: v.Number, State: v.State}
		for _, n := range needs {
			if n.Version != v.Number {
				continue
			}
			if of.Counts == nil {
				of.Counts = map[NeedKind]uint64{}
			}
			of.Counts[n.Kind]++
			if len(of.Needs) < maxListed {
				of.Needs = append(of.Needs, n)
			}
		}
		r.Versions = append(r.Versions, of)
	}
	slices.SortFunc(r.Versions, func(a, b VersionReport) int { return cmp.Compare(a.Number, b.Number) })
	return r
}

// Fingerprint is how people compare the keys of reports: "SHA256:" and unpadded base64
// of the hash, as SSH does it.
func Fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// VerifyReport reads a signed report and checks its signature, offline. That the key is
// the KMS's is for the caller to know: compare Fingerprint(report.Key).
func VerifyReport(data []byte) (Report, SignedReport, error) {
	r, signed, err := verifyReport(data)
	if err != nil {
		return Report{}, SignedReport{}, fmt.Errorf("kms: verifying a report: %w", err)
	}
	return r, signed, nil
}

func verifyReport(data []byte) (Report, SignedReport, error) {
	var r Report
	signed, err := verifySigned(data)
	if err != nil {
		return r, signed, err
	}
	if err := strictly(signed.Statement, &r); err != nil {
		return r, signed, err
	}
	if r.Chatelaine != reportKind {
		return r, signed, fmt.Errorf("%w: kind %q, want %q", ErrInvalid, r.Chatelaine, reportKind)
	}
	return r, signed, nil
}

// verifySigned checks the signature of a statement of any kind.
func verifySigned(data []byte) (SignedReport, error) {
	var signed SignedReport
	if len(data) > MaxReport {
		return signed, fmt.Errorf("%w: %d bytes are over %d", ErrInvalid, len(data), MaxReport)
	}
	if err := strictly(data, &signed); err != nil {
		return signed, err
	}
	if len(signed.Key) != ed25519.PublicKeySize || !ed25519.Verify(signed.Key, signedMessage(signed.Statement), signed.Signature) {
		return signed, fmt.Errorf("%w: the signature is wrong", ErrCorrupt)
	}
	return signed, nil
}

// strictly decodes one JSON value and nothing else.
func strictly(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: something follows it", ErrInvalid)
	}
	return nil
}
