package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"testing"
)

// This file is the format once more, written down from FORMAT.md as plainly as possible, in memory, without the package's own
// code: what the tests compare with and what the frozen vectors were made with. It has its own HKDF, nonces, sizes and CRC.

// refMessage is M(K, ctx, pt) under a given salt.
func refMessage(key, salt []byte, ctx string, pt []byte) []byte {
	okm := refExpand(sha512Hash, key, "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"+string(salt)+ctx, 76)
	block, err := aes.NewCipher(okm[:32])
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	out := append(make([]byte, 0, len(pt)+len(pt)/1000+1000), salt...)
	out = append(out, okm[44:76]...)
	for i := 0; ; i++ {
		nonce := bytes.Clone(okm[32:44])
		for j := range 8 {
			nonce[11-j] ^= byte(uint64(i) >> (8 * j))
		}
		n := min(16384, len(pt))
		out = gcm.Seal(out, nonce, pt[:n], nil)
		if pt = pt[n:]; n < 16384 {
			return out
		}
	}
}

func sha256Hash(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(nil)
}

func sha512Hash(key, b []byte) []byte {
	h := hmac.New(sha512.New, key)
	h.Write(b)
	return h.Sum(nil)
}

// refExpand is HKDF-Expand of RFC 5869, section 2.3.
func refExpand(mac func(key, b []byte) []byte, key []byte, info string, n int) (okm []byte) {
	var t []byte
	for i := byte(1); len(okm) < n; i++ {
		t = mac(key, append(append(t, info...), i))
		okm = append(okm, t...)
	}
	return okm[:n]
}

func refLP(x string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(x)))) + x
}

func refU16(n int) string { return string([]byte{byte(n >> 8), byte(n)}) }

func refU64(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// refSize is F(L).
func refSize(l int64) int64 {
	n := 1 + l/5242880
	if n > 9999 {
		n = 9999
	}
	return l + 16*(l/16384) + 112*n + 176
}

func refCRC(b []byte) uint64 { return crc64.Checksum(b, crc64.MakeTable(0x9a6c9329ac4bc9b5)) }

// refPart is a part to seal.
type refPart struct {
	number  int
	data    []byte
	salt    []byte
	unbound bool
}

// refObject is P_1 || … || P_n || zeros || T || footer. late is the late checksum: algorithm, scope, length and value; md5 has
// 16 bytes or none.
func refObject(dek []byte, parts []refPart, trailerSalt, late, md5 []byte) []byte {
	var object, data, entries []byte
	flags := byte(1)
	for _, p := range parts {
		object = append(object, refMessage(dek, p.salt, "cho1/part\x00"+refU16(p.number), p.data)...)
		data = append(data, p.data...)
		entries = append(entries, refU16(p.number)+refU64(uint64(len(p.data)))[2:]...)
		if p.unbound {
			flags = 0
			entries = append(entries, make([]byte, 24)...)
		} else {
			entries = append(entries, p.salt...)
		}
	}
	crc := refCRC(data)
	if flags == 0 {
		crc = 0
	}
	late = append(bytes.Clone(late), make([]byte, 72-len(late))...)
	if md5 != nil {
		flags |= 2
		copy(late[52:68], md5)
	}
	head := "\x01" + string(flags) + "\x00\x00" + refU64(uint64(len(parts)))[4:] + refU64(uint64(len(data))) + refU64(crc) + refU64(0) + string(late)
	t := refMessage(dek, trailerSalt, "cho1/trl\x00", append([]byte(head), entries...))
	end := append(t, refU64(uint64(len(t)))[4:]+"CHO1"...)
	zeros := refSize(int64(len(data))) - int64(len(object)) - int64(len(end))
	return append(append(object, make([]byte, zeros)...), end...)
}

// refToken is the ETag with token of §6.
func refToken(dek []byte, upload string, number int, etag string, salt []byte, length int64, crc uint64, checksum []byte) string {
	claims := string(salt) + refU64(uint64(length))[2:] + refU64(crc) + string(checksum)
	key := refExpand(sha256Hash, dek, "cho1/etag", 32)
	mac := sha256Hash(key, []byte(refLP(upload)+refU16(number)+refLP(etag)+claims))
	return etag + "-" + base64.RawURLEncoding.EncodeToString(append([]byte(claims), mac[:10]...))
}

// refText is n bytes that look random: AES-256-CTR under SHA-256(seed) from a zero counter, over zeros.
func refText(seed string, n int64) []byte {
	key := sha256.Sum256([]byte(seed))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	b := make([]byte, n)
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(b, b)
	return b
}

// testBytes is a fixed key or salt, by number.
func testBytes(i, n int) []byte { return refText(fmt.Sprintf("bytes %d", i), int64(n)) }

func testKey(tb testing.TB, i int) Key {
	tb.Helper()
	k, err := NewKey(testBytes(i, KeySize))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// fixedSuite draws the given salts in turn, and fails when they are used up.
func fixedSuite(salts ...[]byte) Suite {
	return Suite{Rand: bytes.NewReader(bytes.Join(salts, nil))}
}

func sizeName(n int) string {
	if n < 1<<10 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%dKiB", n>>10)
}
