package sealed

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// schemeLabel names the instance of C2SP chunked-encryption in key derivation (§1).
const schemeLabel = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"

// message seals or opens the chunks of one message of §1. It is for one goroutine.
type message struct {
	aead   cipher.AEAD
	header [HeaderSize]byte // salt || commitment
	base   [nonceSize]byte
	nonce  [nonceSize]byte // of the chunk at hand; a field, as a local array would escape at each chunk
}

// newMessage derives the keys of the message under k that begins with salt.
func (s Suite) newMessage(k Key, salt Salt, ctx []byte) (*message, error) {
	key, err := k.bytes()
	if err != nil {
		return nil, err
	}
	info := make([]byte, 0, len(schemeLabel)+SaltSize+len(ctx))
	info = append(append(append(info, schemeLabel...), salt[:]...), ctx...)
	okm, err := hkdf.Expand(sha512.New, key, string(info), KeySize+nonceSize+commitSize)
	if err != nil {
		return nil, fmt.Errorf("sealed: deriving message keys: %w", err)
	}
	defer clear(okm)
	m := &message{base: [nonceSize]byte(okm[KeySize:])}
	copy(m.header[:], salt[:])
	copy(m.header[SaltSize:], okm[KeySize+nonceSize:])
	if m.aead, err = s.aead(okm[:KeySize]); err != nil {
		return nil, fmt.Errorf("sealed: making the cipher: %w", err)
	}
	if m.aead.NonceSize() != nonceSize || m.aead.Overhead() != TagSize {
		return nil, fmt.Errorf("sealed: making the cipher: nonce of %d and tag of %d bytes", m.aead.NonceSize(), m.aead.Overhead())
	}
	return m, nil
}

// seal appends sealed chunk i to dst, whose spare capacity may not overlap pt unless it is the same memory.
func (m *message) seal(dst []byte, i int64, pt []byte) []byte {
	return m.aead.Seal(dst, m.nonceOf(i), pt, nil)
}

// open appends the plaintext of chunk i to dst, with the same rule. Its error says nothing; callers know the place.
func (m *message) open(dst []byte, i int64, ct []byte) ([]byte, error) {
	return m.aead.Open(dst, m.nonceOf(i), ct, nil)
}

func (m *message) nonceOf(i int64) []byte {
	const counter = nonceSize - 8
	m.nonce = m.base
	binary.BigEndian.PutUint64(m.nonce[counter:], binary.BigEndian.Uint64(m.base[counter:])^uint64(i))
	return m.nonce[:]
}

// committed compares a stored header with the one that key, salt and context make, in constant time.
func (m *message) committed(header []byte) bool {
	return subtle.ConstantTimeCompare(header, m.header[:]) == 1
}

// sealMessage seals a small message in memory, under a fresh salt.
func (s Suite) sealMessage(k Key, ctx, pt []byte) ([]byte, error) {
	salt, err := s.newSalt()
	if err != nil {
		return nil, err
	}
	m, err := s.newMessage(k, salt, ctx)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, MessageSize(int64(len(pt))))
	out = append(out, m.header[:]...)
	for i := int64(0); ; i++ {
		n := min(len(pt), ChunkSize)
		out = m.seal(out, i, pt[:n])
		if n < ChunkSize {
			return out, nil
		}
		pt = pt[n:]
	}
}

// openMessage opens a small message in memory. It fails with ErrCorrupt.
func (s Suite) openMessage(k Key, ctx, msg []byte) ([]byte, error) {
	if len(msg) < HeaderSize {
		return nil, fmt.Errorf("%w: message of %d bytes", ErrCorrupt, len(msg))
	}
	m, err := s.newMessage(k, Salt(msg[:SaltSize]), ctx)
	if err != nil {
		return nil, err
	}
	if !m.committed(msg[:HeaderSize]) {
		return nil, fmt.Errorf("%w: wrong key, name or place", ErrCorrupt)
	}
	return m.openChunks(msg[HeaderSize:])
}

// openChunks opens all chunks. A message that was cut between chunks ends with a chunk of no bytes, which has no tag.
func (m *message) openChunks(body []byte) ([]byte, error) {
	pt := make([]byte, 0, len(body))
	for i := int64(0); ; i++ {
		chunk := body[:min(len(body), SealedChunkSize)]
		opened, err := m.open(pt, i, chunk)
		if err != nil {
			return nil, fmt.Errorf("%w: chunk %d", ErrCorrupt, i)
		}
		if len(chunk) < SealedChunkSize {
			return opened, nil
		}
		pt, body = opened, body[len(chunk):]
	}
}

// The contexts of §2.

func envelopeContext(n ObjectName) []byte {
	return n.context("cho1/env\x00")
}

func uploadContext(n UploadName) []byte {
	return appendLP(n.Object.context("cho1/upl\x00"), n.UploadID)
}

func partContext(number int) []byte {
	return binary.BigEndian.AppendUint16([]byte("cho1/part\x00"), uint16(number))
}

func tokenContext(at TokenPlace) []byte {
	b := appendLP([]byte("cho1/tok\x00"), at.UploadID)
	return appendLP(binary.BigEndian.AppendUint16(b, uint16(at.Number)), at.ETag)
}

func trailerContext() []byte { return []byte("cho1/trl\x00") }

func (n ObjectName) context(label string) []byte {
	return appendLP(appendLP([]byte(label), n.Space[:]), n.Key)
}

// appendLP appends lp(x): a u32 length and x.
func appendLP[T string | []byte](b []byte, x T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(x))), x...)
}
