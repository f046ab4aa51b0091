package sealed

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// A part token of §6: salt24 || u48 length || u64 CRC64NVME || checksum (0 to 64 bytes) || mac10.
const (
	tokenClaims = SaltSize + 6 + 8
	tokenMAC    = 10
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
	claims, err := at.claims(p)
	if err != nil {
		return "", err
	}
	mac, err := at.mac(dek, claims)
	if err != nil {
		return "", err
	}
	return at.ETag + "-" + base64.RawURLEncoding.EncodeToString(append(claims, mac...)), nil
}

// SealToken makes what is kept of a token at the provider, in letters of base64url, at most 232 (§6): a token as clients have it
// shows checksums of the plaintext. Errors are those of JoinETag.
func (s Suite) SealToken(dek Key, at TokenPlace, p Part) (string, error) {
	claims, err := at.claims(p)
	if err != nil {
		return "", err
	}
	msg, err := s.sealMessage(dek, tokenContext(at), claims)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(msg), nil
}

// OpenToken opens what SealToken made for this place; otherwise it fails with ErrToken.
func (s Suite) OpenToken(dek Key, at TokenPlace, text string) (Part, error) {
	msg, err := decodeBase64(text)
	if err != nil || len(msg) > int(MessageSize(tokenClaims+maxChecksum)) {
		return Part{}, fmt.Errorf("%w: part %d: %d letters", ErrToken, at.Number, len(text))
	}
	claims, err := s.openMessage(dek, tokenContext(at), msg)
	if err != nil {
		return Part{}, fmt.Errorf("%w: part %d: %w", ErrToken, at.Number, err)
	}
	return at.part(claims)
}

// claims are what a token says.
func (at TokenPlace) claims(p Part) ([]byte, error) {
	if p.Number != at.Number || p.Salt.IsZero() || !p.HasCRC || p.Length < 0 || p.Length > MaxPartSize {
		return nil, fmt.Errorf("%w: token for part %d of %d bytes", ErrRange, p.Number, p.Length)
	}
	if len(p.Checksum) > maxChecksum {
		return nil, fmt.Errorf("%w: checksum of %d bytes", ErrRange, len(p.Checksum))
	}
	claims := binary.BigEndian.AppendUint64(nil, uint64(p.Length))[2:]
	claims = binary.BigEndian.AppendUint64(append(p.Salt[:], claims...), p.CRC)
	return append(claims, p.Checksum...), nil
}

// part reads claims that are authentic.
func (at TokenPlace) part(claims []byte) (Part, error) {
	if len(claims) < tokenClaims {
		return Part{}, fmt.Errorf("%w: part %d: %d bytes", ErrToken, at.Number, len(claims))
	}
	p := Part{
		Number: at.Number, Salt: Salt(claims), HasCRC: true, CRC: binary.BigEndian.Uint64(claims[30:]),
		Length: int64(binary.BigEndian.Uint64(claims[22:]) & (1<<48 - 1)),
	}
	if len(claims) > tokenClaims {
		p.Checksum = append([]byte(nil), claims[tokenClaims:]...)
	}
	if p.Salt.IsZero() || p.Length > MaxPartSize {
		return Part{}, fmt.Errorf("%w: part %d", ErrToken, at.Number)
	}
	return p, nil
}

// OpenETag verifies the ETag (without quotes) that a client brought for a part and returns the backend's ETag and the part.
// It fails with ErrNoToken if there is none in it, and with ErrToken if it is not one of this upload and number.
//
// Base64url has "-" too, and a token's length depends on the checksum in it. So every "-" with a possible length behind it
// is tried, and the MAC decides.
func OpenETag(dek Key, uploadID string, number int, visible string) (backend string, p Part, err error) {
	err = fmt.Errorf("%w: part %d", ErrNoToken, number)
	for size := tokenClaims + tokenMAC; size <= tokenClaims+maxChecksum+tokenMAC; size++ {
		at := len(visible) - base64.RawURLEncoding.EncodedLen(size)
		if at < 2 || visible[at-1] != '-' {
			continue
		}
		token, decodeErr := decodeBase64(visible[at:])
		if decodeErr != nil {
			continue
		}
		backend = visible[:at-1]
		if p, err = openToken(dek, TokenPlace{UploadID: uploadID, Number: number, ETag: backend}, token); err == nil {
			return backend, p, nil
		}
	}
	return "", Part{}, err
}

// openToken verifies a token, of at least tokenClaims+tokenMAC bytes, at its place.
func openToken(dek Key, at TokenPlace, b []byte) (Part, error) {
	claims, got := b[:len(b)-tokenMAC], b[len(b)-tokenMAC:]
	mac, err := at.mac(dek, claims)
	if err != nil {
		return Part{}, err
	}
	if !hmac.Equal(mac, got) {
		return Part{}, fmt.Errorf("%w: part %d", ErrToken, at.Number)
	}
	return at.part(claims)
}

// mac authenticates the claims of a token.
func (at TokenPlace) mac(dek Key, claims []byte) ([]byte, error) {
	secret, err := dek.bytes()
	if err != nil {
		return nil, err
	}
	if at.Number < 1 || at.Number > MaxParts {
		return nil, fmt.Errorf("%w: %d", ErrPartNumber, at.Number)
	}
	key, err := hkdf.Expand(sha256.New, secret, tokenLabel, KeySize)
	if err != nil {
		return nil, fmt.Errorf("sealed: deriving token key: %w", err)
	}
	h := hmac.New(sha256.New, key)
	h.Write(binary.BigEndian.AppendUint16(appendLP(nil, at.UploadID), uint16(at.Number)))
	h.Write(appendLP(nil, at.ETag))
	h.Write(claims)
	return h.Sum(nil)[:tokenMAC], nil
}
