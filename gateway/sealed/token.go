package sealed

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// A part token of §6: salt24 || u48 length || u64 CRC64NVME || mac10.
const (
	tokenSize   = 48
	tokenClaims = tokenSize - tokenMAC
	tokenMAC    = 10
	tokenText   = tokenSize / 3 * 4 // as base64
	tokenLabel  = "cho1/etag"
)

// TokenPlace is what a part token is bound to, besides the DEK.
type TokenPlace struct {
	UploadID string // the backend's
	Number   int    // part number, 1 to MaxParts
	ETag     string // the backend's, without quotes
}

// JoinETag makes the ETag that a client gets for a part: the backend's, "-" and the token (§6). p comes from Sealer.Part.
// It fails with ErrRange if p is not complete or not part at.Number.
func JoinETag(dek Key, at TokenPlace, p Part) (string, error) {
	if p.Number != at.Number || p.Salt.IsZero() || !p.HasCRC || p.Length < 0 || p.Length > MaxPartSize {
		return "", fmt.Errorf("%w: token for part %d of %d bytes", ErrRange, p.Number, p.Length)
	}
	claims := binary.BigEndian.AppendUint64(make([]byte, 0, tokenSize), uint64(p.Length))[2:]
	claims = binary.BigEndian.AppendUint64(append(p.Salt[:], claims...), p.CRC)
	mac, err := at.mac(dek, claims)
	if err != nil {
		return "", err
	}
	return at.ETag + "-" + base64.RawURLEncoding.EncodeToString(append(claims, mac...)), nil
}

// SplitETag parts the ETag of a client (without quotes) into the backend's and a token; without one, token is empty and
// backend is all of it. Nothing is verified.
func SplitETag(visible string) (backend, token string) {
	at := len(visible) - tokenText
	if at < 1 || visible[at-1] != '-' {
		return visible, ""
	}
	if _, err := decodeBase64(visible[at:]); err != nil {
		return visible, ""
	}
	return visible[:at-1], visible[at:]
}

// OpenETag verifies the ETag (without quotes) that a client brought for a part and returns the backend's ETag and the part.
// It fails with ErrNoToken if there is none in it, and with ErrToken if it is not one of this upload and number.
func OpenETag(dek Key, uploadID string, number int, visible string) (backend string, p Part, err error) {
	backend, token := SplitETag(visible)
	if token == "" {
		return backend, Part{}, fmt.Errorf("%w: part %d", ErrNoToken, number)
	}
	b, err := decodeBase64(token)
	if err != nil {
		return "", Part{}, fmt.Errorf("%w: part %d", ErrToken, number)
	}
	mac, err := TokenPlace{UploadID: uploadID, Number: number, ETag: backend}.mac(dek, b[:tokenClaims])
	if err != nil {
		return "", Part{}, err
	}
	p = Part{
		Number: number, Salt: Salt(b), HasCRC: true, CRC: binary.BigEndian.Uint64(b[30:]),
		Length: int64(binary.BigEndian.Uint64(b[22:]) & (1<<48 - 1)),
	}
	if !hmac.Equal(mac, b[tokenClaims:]) || p.Salt.IsZero() || p.Length > MaxPartSize {
		return "", Part{}, fmt.Errorf("%w: part %d", ErrToken, number)
	}
	return backend, p, nil
}

// mac authenticates the claims of a token.
func (at TokenPlace) mac(dek Key, claims []byte) ([]byte, error) {
	if dek.p == nil {
		return nil, fmt.Errorf("%w: absent", ErrKey)
	}
	if at.Number < 1 || at.Number > MaxParts {
		return nil, fmt.Errorf("%w: %d", ErrPartNumber, at.Number)
	}
	key, err := hkdf.Expand(sha256.New, dek.p[:], tokenLabel, KeySize)
	if err != nil {
		return nil, fmt.Errorf("sealed: deriving token key: %w", err)
	}
	h := hmac.New(sha256.New, key)
	h.Write(binary.BigEndian.AppendUint16(appendLP(nil, at.UploadID), uint16(at.Number)))
	h.Write(appendLP(nil, at.ETag))
	h.Write(claims)
	return h.Sum(nil)[:tokenMAC], nil
}
