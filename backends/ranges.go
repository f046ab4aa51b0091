package backends

// Clip turns r into the absolute part of an object of size bytes that it selects.
// A nil r selects the whole object, also an empty one. Any other range of an empty
// object, one that begins at or beyond the end, and one of no bytes are a
// *RangeError (S3 answers 416; RFC 9110 section 14.1.2 would let a suffix of
// nothing pass).
func (r *Range) Clip(size int64) (Range, error) {
	switch {
	case r == nil:
		return Range{0, size}, nil
	case r.Offset >= size, r.Offset >= 0 && r.Length == 0, size == 0:
		return Range{}, &RangeError{Size: size}
	case r.Offset < -size:
		return Range{0, size}, nil
	case r.Offset < 0:
		return Range{size + r.Offset, -r.Offset}, nil
	case r.Length < 0 || r.Length > size-r.Offset:
		return Range{r.Offset, size - r.Offset}, nil
	}
	return *r, nil
}

// Within is Clip for a range that must lie within the object: what would be cut at
// the end is a *RangeError, too.
func (r *Range) Within(size int64) (Range, error) {
	if r != nil && (r.Offset < -size || r.Offset >= 0 && r.Length > size-r.Offset) {
		return Range{}, &RangeError{Size: size}
	}
	return r.Clip(size)
}
