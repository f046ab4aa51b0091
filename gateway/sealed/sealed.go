// Package sealed is the object format of Chatelaine: it turns plaintext into the bytes that a provider may hold and back,
// and does the arithmetic between the two. FORMAT.md beside this file is the authority; "§" in comments refers to it.
//
// It refuses to know S3, HTTP, stores and the KMS: it is given keys, readers and numbers, and it does no input or output
// of its own. Besides the standard library it imports one CRC.
//
// All operations hang off a Suite, whose zero value is what production uses. Sealing draws every salt afresh from the
// Suite's randomness, so no caller can make a nonce repeat. Opening releases no plaintext that was not authenticated.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// Sizes and limits of the format, in bytes where nothing else is said (§1, §4).
const (
	ChunkSize       = 16384                                  // plaintext in a full chunk
	TagSize         = 16                                     // AES-GCM tag behind each chunk
	SealedChunkSize = ChunkSize + TagSize                    // a full chunk as stored
	HeaderSize      = SaltSize + commitSize                  // before the first chunk of a message
	SaltSize        = 24                                     // fresh randomness at the start of each message
	MinPartSize     = 5 << 20                                // smallest plaintext of a part that is not the last
	MaxPartSize     = 5 << 30                                // largest plaintext of a part, and of an object of kind Single
	MaxParts        = 10000                                  // most parts, and the highest part number
	MaxLength       = MaxParts * MaxPartSize                 // largest plaintext of an object
	MaxBatch        = 64                                     // most chunks that are sealed or opened at once
	MetadataName    = "cho1"                                 // x-amz-meta-cho1 carries the envelope
	MaxHeader       = 2048 - len("x-amz-meta-"+MetadataName) // longest envelope header that every provider takes

	commitSize = 32
	nonceSize  = 12
	footerSize = 8
	footerText = "CHO1"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrCorrupt says that sealed bytes are not what was sealed under this key, for this name, at this place:
	// a wrong key and a hostile provider look the same.
	ErrCorrupt = errors.New("sealed: not authentic")
	// ErrUnsupported says that bytes were sealed by a version of the format that this one does not know.
	ErrUnsupported = errors.New("sealed: unknown format version")
	// ErrTooLarge says that attributes do not fit into one envelope header (S3: MetadataTooLarge).
	ErrTooLarge = errors.New("sealed: metadata too large")
	// ErrShortBody and ErrLongBody say that a source held less or more than was declared (S3: IncompleteBody).
	ErrShortBody = errors.New("sealed: body shorter than declared")
	ErrLongBody  = errors.New("sealed: body longer than declared")
	// ErrKey says that a key is absent, all zero or not of 32 bytes.
	ErrKey = errors.New("sealed: unusable key")
	// ErrNoToken says that an ETag carries no part token (a client took it from ListParts).
	ErrNoToken = errors.New("sealed: no part token")
	// ErrToken says that a part token is not one of this upload, part number and ETag (S3: InvalidPart).
	ErrToken = errors.New("sealed: false part token")
	// ErrPartNumber says that a part number is not within 1 to MaxParts (S3: InvalidArgument).
	ErrPartNumber = errors.New("sealed: part number out of range")
	// ErrPartOrder says that part numbers do not increase (S3: InvalidPartOrder).
	ErrPartOrder = errors.New("sealed: parts out of order")
	// ErrPartSize says that a part other than the last is below MinPartSize (S3: EntityTooSmall).
	ErrPartSize = errors.New("sealed: part too small")
	// ErrRange says that a length, a range or a window is not one of the object.
	ErrRange = errors.New("sealed: out of range")
)

// Suite is what sealing and opening run on. The zero value is ready and is what production uses.
// A Suite may be copied and used concurrently as far as its fields can.
type Suite struct {
	// Rand yields salts and DEKs. nil means crypto/rand. Anything else is for frozen vectors.
	Rand io.Reader
	// NewAEAD makes an AEAD of 12-byte nonces and 16-byte tags from a 32-byte key, which it must not keep.
	// nil means AES-256-GCM. Tests put one here that panics when a key and nonce pair repeats.
	NewAEAD func(key []byte) (cipher.AEAD, error)
	// Buffers recycles the memory of Sealers and Openers. nil means that each allocates its own.
	Buffers *Buffers
}

// Salt begins a message and makes its keys its own (§1). All zero stands for "none" in envelopes and part tables.
type Salt [SaltSize]byte

// IsZero tells whether s is the salt of nothing.
func (s Salt) IsZero() bool { return s == Salt{} }

// NewDEK draws the data key of a new object.
func (s Suite) NewDEK() (Key, error) {
	var b [KeySize]byte
	if err := s.random(b[:]); err != nil {
		return Key{}, err
	}
	return NewKey(b[:])
}

func (s Suite) newSalt() (salt Salt, err error) {
	return salt, s.random(salt[:])
}

func (s Suite) random(b []byte) error {
	r := s.Rand
	if r == nil {
		r = rand.Reader
	}
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("sealed: drawing randomness: %w", err)
	}
	return nil
}

func (s Suite) aead(key []byte) (cipher.AEAD, error) {
	if s.NewAEAD != nil {
		return s.NewAEAD(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
