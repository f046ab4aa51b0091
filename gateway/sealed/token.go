package sealed

// TokenPlace is what a part token is bound to.
type TokenPlace struct {
	UploadID string // the backend's
	Number   int    // part number
	ETag     string // the backend's, without quotes
}

// JoinETag makes the ETag that a client gets for a part: backend ETag, "-" and the token (§6).
// p.Number is ignored in favour of at.Number.
func JoinETag(dek Key, at TokenPlace, p Part) (string, error) { return "", errSkeleton }

// SplitETag parts the ETag of a client (without quotes) into the backend's and a token; without one, token is empty and
// backend is all of it. Nothing is verified.
func SplitETag(visible string) (backend, token string) { return visible, "" }

// OpenETag verifies the ETag (without quotes) that a client brought for a part and returns the backend's ETag and the part.
// It fails with ErrNoToken if there is none in it, and with ErrToken if it is not one of this upload and number.
func OpenETag(dek Key, uploadID string, number int, visible string) (backend string, p Part, err error) {
	return "", Part{}, errSkeleton
}
