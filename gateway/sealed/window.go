package sealed

// ToEnd as a length means: to the end of the object.
const ToEnd = -1

// Window is a run of stored bytes to ask a backend for.
type Window struct {
	Offset int64 // of the first byte within the stored object
	Length int64 // in bytes, or ToEnd; a backend may hold fewer, as ranges do not fail for running past the end
}

// RangeWindow covers n plaintext bytes from off (n is ToEnd for all that follow) of an object of kind Single whose length is
// not known yet, so that one request brings the envelope and the data. Its end may lie in or beyond the trailer; NewOpener
// takes what it needs. off is not negative; n is positive or ToEnd. Add no more than the object has: off+n must not overflow.
func RangeWindow(off, n int64) Window {
	start := chunkOffset(off / ChunkSize)
	if n == ToEnd {
		return Window{Offset: start, Length: ToEnd}
	}
	end := HeaderSize + (off+n-1)/ChunkSize*SealedChunkSize + SealedChunkSize
	if (off+n)%ChunkSize == 0 {
		end += TagSize // if the data ends here, an empty chunk says so
	}
	return Window{Offset: start, Length: end - start}
}

// chunkOffset is where in a message reading has to start for chunk i: the header belongs to the first chunk.
func chunkOffset(i int64) int64 {
	if i == 0 {
		return 0
	}
	return HeaderSize + i*SealedChunkSize
}

// SuffixWindow is a number of stored bytes at the end of any object of kind Single that surely holds its last n plaintext
// bytes and its trailer. n is positive. Filler makes it about 128 KiB more than n.
func SuffixWindow(n int64) int64 {
	n = min(n, MaxPartSize)
	filler := slotCost * (slots(MaxPartSize) - 1)
	chunks := (n+ChunkSize-1)/ChunkSize + 1
	return filler + trailerSize(1) + footerSize + HeaderSize + chunks*SealedChunkSize
}

// TrailerWindow is the suffix of an object of kind Multipart, stored in the given number of bytes, that surely holds its
// trailer. It fails with ErrCorrupt where no object has that size.
func TrailerWindow(stored int64) (Window, error) {
	n, ok := PlainSize(stored)
	if !ok {
		return Window{}, badSize(stored)
	}
	length := min(stored, trailerSize(int(mostParts(n)))+footerSize)
	return Window{Offset: stored - length, Length: length}, nil
}
