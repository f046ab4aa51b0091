package sealed

// crcPoly is the polynomial of CRC-64/NVME with the bits reversed, as github.com/minio/crc64nvme computes it:
// bit 63 of a value stands for x^0.
const crcPoly = 0x9a6c9329ac4bc9b5

// combineCRC is the CRC of a || b for the CRCs of a and b, where shift is crcShift of the length of b: a(x) * shift + b(x).
func combineCRC(a, b, shift uint64) uint64 { return crcMul(a, shift) ^ b }

// crcShift is x^(8n) modulo the polynomial.
func crcShift(n int64) uint64 {
	r, square := uint64(1)<<63, uint64(1)<<55
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			r = crcMul(r, square)
		}
		square = crcMul(square, square)
	}
	return r
}

// crcMul is a*b modulo the polynomial.
func crcMul(a, b uint64) (p uint64) {
	for ; a != 0; a <<= 1 {
		p ^= b & -(a >> 63)
		b = b>>1 ^ crcPoly&-(b&1)
	}
	return p
}
