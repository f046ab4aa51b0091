package objects

import (
	"crypto/md5"  //nolint:gosec // S3 has it as a checksum, not for secrecy
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/minio/crc64nvme"
	"github.com/zeebo/xxh3"

	"chatelaine/gateway/sealed"
)

// NewHash makes the hash of an algorithm; nil for one that is not known. Sums are
// big-endian, which is the canonical form of CRCs and XXHASHes; seeds are 0.
func (a Algorithm) NewHash() hash.Hash {
	switch a {
	case CRC32:
		return crc32.NewIEEE()
	case CRC32C:
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case CRC64NVME:
		return crc64nvme.New()
	case SHA1:
		return sha1.New() //nolint:gosec // as above
	case SHA256:
		return sha256.New()
	case SHA512:
		return sha512.New()
	case MD5:
		return md5.New() //nolint:gosec // as above
	case XXHASH64:
		return xxhash.New()
	case XXHASH3:
		return xxh3.New()
	case XXHASH128:
		return xxh3.New128()
	}
	return nil
}

func (a Algorithm) toSealed() sealed.Algorithm {
	return sealed.Algorithm(slices.Index(Algorithms(), a) + 1) // 0 is NoChecksum
}

func fromSealedAlgorithm(a sealed.Algorithm) Algorithm {
	if all := Algorithms(); a != sealed.NoChecksum && int(a) <= len(all) {
		return all[a-1]
	}
	return ""
}

func scopeOf(composite bool) sealed.Scope {
	if composite {
		return sealed.Composite
	}
	return sealed.FullObject
}

func (c Checksum) toSealed() sealed.Checksum {
	return sealed.Checksum{Algorithm: c.Algorithm.toSealed(), Scope: scopeOf(c.Composite), Value: c.Value, Parts: c.Parts}
}

func fromSealedChecksum(c sealed.Checksum) Checksum {
	return Checksum{Algorithm: fromSealedAlgorithm(c.Algorithm), Composite: c.Scope == sealed.Composite, Value: c.Value, Parts: c.Parts}
}

// composite is S3's checksum of the parts' checksums.
func (a Algorithm) composite(parts [][]byte) []byte {
	h := a.NewHash()
	for _, p := range parts {
		_, _ = h.Write(p)
	}
	return h.Sum(nil)
}

// reflected CRC polynomials and their widths in bits
func (a Algorithm) polynomial() (poly uint64, width uint) {
	switch a {
	case CRC32:
		return crc32.IEEE, 32
	case CRC32C:
		return crc32.Castagnoli, 32
	case CRC64NVME:
		return 0x9a6c9329ac4bc9b5, 64
	}
	return 0, 0
}

// Combines says whether the checksum of a whole follows from those of its parts.
func (a Algorithm) Combines() bool {
	_, width := a.polynomial()
	return width != 0
}

// combine is the CRC of two pieces one after the other, the second of n bytes:
// the first times x^(8n), plus the second, in GF(2)[x] modulo the polynomial.
func (a Algorithm) combine(first, second []byte, n int64) []byte {
	poly, width := a.polynomial()
	c := multiply(power(8*uint64(n), poly, width), fromBytes(first), poly, width) ^ fromBytes(second)
	return toBytes(c, len(first))
}

// multiply multiplies reflected polynomials: the top bit is x^0.
func multiply(a, b, poly uint64, width uint) uint64 {
	var product uint64
	for bit := uint64(1) << (width - 1); bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ poly
		} else {
			b >>= 1
		}
	}
	return product
}

// power is x^n.
func power(n, poly uint64, width uint) uint64 {
	result, square := uint64(1)<<(width-1), uint64(1)<<(width-2)
	for ; n != 0; n >>= 1 {
		if n&1 != 0 {
			result = multiply(result, square, poly, width)
		}
		square = multiply(square, square, poly, width)
	}
	return result
}

func fromBytes(b []byte) uint64 {
	var full [8]byte
	copy(full[8-len(b):], b)
	return binary.BigEndian.Uint64(full[:])
}

func toBytes(v uint64, n int) []byte {
	return binary.BigEndian.AppendUint64(nil, v)[8-n:]
}

// hashing passes a body on and hashes it.
type hashing struct {
	src io.Reader
	h   hash.Hash
}

func (r *hashing) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	_, _ = r.h.Write(p[:n])
	return n, err
}
