package sealed

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"time"
)

// stashPlain is the plaintext of a stash in bytes: DEK, u64 created, u8 algorithm, u8 scope (§6).
const stashPlain = KeySize + 8 + 2

// Stash is what an upload must remember between its requests.
type Stash struct {
	DEK       Key
	Created   time.Time // kept to the millisecond, opened in UTC
	Algorithm Algorithm // checksum that the client chose; NoChecksum if none
	Scope     Scope     // of that checksum
}

// UploadName is what a stash is bound to.
type UploadName struct {
	Object   ObjectName
	UploadID string // the backend's
}

// StashDir is the prefix, ending in a slash, under which the stash ("key") and a staged part of an upload lie (§6).
func StashDir(uploadID string) string {
	sum := sha256.Sum256([]byte(uploadID))
	return ".chatelaine/uploads/" + hex.EncodeToString(sum[:16]) + "/"
}

// SealStash makes the bytes of the stash object. id names bucketKey and is visible.
func (s Suite) SealStash(id KeyID, bucketKey Key, name UploadName, st Stash) ([]byte, error) {
	dek, err := st.DEK.bytes()
	if err != nil {
		return nil, err
	}
	created := st.Created.UnixMilli()
	if created < 0 || !st.valid() {
		return nil, fmt.Errorf("%w: stash of algorithm %d, scope %d, created %d", ErrRange, st.Algorithm, st.Scope, created)
	}
	pt := append(make([]byte, 0, stashPlain), dek...)
	pt = append(binary.BigEndian.AppendUint64(pt, uint64(created)), byte(st.Algorithm), byte(st.Scope))
	defer clear(pt)
	msg, err := s.sealMessage(bucketKey, uploadContext(name), pt)
	if err != nil {
		return nil, err
	}
	return append(id[:], msg...), nil
}

// StashKeyID says which bucket key opens stash. Nothing is authenticated by that. It fails with ErrCorrupt for what is no stash.
func StashKeyID(stash []byte) (id KeyID, err error) {
	if want := len(id) + int(MessageSize(stashPlain)); len(stash) != want {
		return id, fmt.Errorf("%w: stash of %d bytes, want %d", ErrCorrupt, len(stash), want)
	}
	return KeyID(stash), nil
}

// OpenStash opens what SealStash made for this upload under this key; otherwise it fails with ErrCorrupt.
func (s Suite) OpenStash(stash []byte, bucketKey Key, name UploadName) (Stash, error) {
	if _, err := StashKeyID(stash); err != nil {
		return Stash{}, err
	}
	pt, err := s.openMessage(bucketKey, uploadContext(name), stash[len(KeyID{}):])
	if err != nil {
		return Stash{}, fmt.Errorf("%w (stash)", err)
	}
	defer clear(pt)
	return decodeStash(pt)
}

func decodeStash(pt []byte) (st Stash, err error) {
	if len(pt) != stashPlain {
		return Stash{}, fmt.Errorf("%w: stash of %d bytes", ErrCorrupt, len(pt))
	}
	created := binary.BigEndian.Uint64(pt[KeySize:])
	st = Stash{Algorithm: Algorithm(pt[stashPlain-2]), Scope: Scope(pt[stashPlain-1])}
	if created > math.MaxInt64 || !st.valid() {
		return Stash{}, fmt.Errorf("%w: stash of algorithm %d, scope %d", ErrCorrupt, st.Algorithm, st.Scope)
	}
	st.Created = time.UnixMilli(int64(created)).UTC()
	if st.DEK, err = NewKey(pt[:KeySize]); err != nil {
		return Stash{}, fmt.Errorf("%w: stash without a DEK", ErrCorrupt)
	}
	return st, nil
}

// valid tells whether the checksum choice is one that §3 knows.
func (st *Stash) valid() bool {
	_, known := st.Algorithm.size()
	none := st.Algorithm == NoChecksum && st.Scope == FullObject
	return none || (known && st.Scope <= Composite)
}
