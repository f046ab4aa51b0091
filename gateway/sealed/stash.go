package sealed

import "time"

// Stash is what an upload must remember between its requests.
type Stash struct {
	DEK       Key
	Created   time.Time // kept to the millisecond, opened in UTC
	Algorithm Algorithm // checksum that the client chose; NoChecksum if none
	Scope     Scope
}

// UploadName is what a stash is bound to.
type UploadName struct {
	Object   ObjectName
	UploadID string // the backend's
}

// StashDir is the prefix, ending in a slash, under which the stash ("key") and a staged part of an upload lie (§6).
func StashDir(uploadID string) string { return "" }

// SealStash makes the bytes of the stash object. id names bucketKey and is visible.
func (s Suite) SealStash(id KeyID, bucketKey Key, name UploadName, st Stash) ([]byte, error) {
	return nil, errSkeleton
}

// StashKeyID says which bucket key opens stash. It fails with ErrCorrupt for what is no stash.
func StashKeyID(stash []byte) (KeyID, error) { return KeyID{}, errSkeleton }

// OpenStash opens what SealStash made for this upload under this key; otherwise it fails with ErrCorrupt.
func (s Suite) OpenStash(stash []byte, bucketKey Key, name UploadName) (Stash, error) {
	return Stash{}, errSkeleton
}
