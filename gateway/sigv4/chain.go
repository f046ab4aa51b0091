package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
)

const signatureSize = 2 * sha256.Size

// chain is the chain of chunk signatures. It keeps HMAC's state of the signing
// key for as long as the body lives, so that no chunk allocates.
type chain struct {
	mac     hash.Hash
	sum     hash.Hash // of the current chunk's data
	chunk   []byte    // what is signed, up to the previous signature
	trailer []byte    // the same for the trailer
	empty   []byte    // what is signed between that and the hash of a chunk
	prev    [signatureSize]byte
	stated  [signatureSize]byte
	hexed   [signatureSize]byte
	digest  [sha256.Size]byte
}

func newChain(s *Signed) *chain {
	scope := "\n" + s.timestamp + "\n" + s.Scope.credential() + "\n"
	h := &chain{
		sum:     sha256.New(),
		chunk:   []byte("AWS4-HMAC-SHA256-PAYLOAD" + scope),
		trailer: []byte("AWS4-HMAC-SHA256-TRAILER" + scope),
		empty:   []byte("\n" + emptyHash + "\n"),
	}
	s.Key.Use(func(key []byte) { h.mac = hmac.New(sha256.New, key) })
	copy(h.prev[:], s.signature)
	return h
}

// claim takes a chunk's signature as stated and begins its hash.
func (h *chain) claim(sig []byte) {
	copy(h.stated[:], sig)
	h.sum.Reset()
}

// verify compares the signature of the chunk whose data sum has seen.
func (h *chain) verify() bool {
	return h.accept(h.chunk, h.empty, h.sum.Sum(h.digest[:0]))
}

// verifyTrailer compares the trailer's signature; raw is the trailer as signed.
func (h *chain) verifyTrailer(raw []byte, signature string) bool {
	copy(h.stated[:], signature)
	h.digest = sha256.Sum256(raw)
	return h.accept(h.trailer, h.empty[:1], h.digest[:])
}

// accept computes the next signature of the chain and compares it in constant
// time.
func (h *chain) accept(head, middle, digest []byte) bool {
	hex.Encode(h.hexed[:], digest)
	h.mac.Reset()
	h.mac.Write(head)
	h.mac.Write(h.prev[:])
	h.mac.Write(middle)
	h.mac.Write(h.hexed[:])
	hex.Encode(h.hexed[:], h.mac.Sum(h.digest[:0]))
	h.prev = h.hexed
	return subtle.ConstantTimeCompare(h.hexed[:], h.stated[:]) == 1
}
