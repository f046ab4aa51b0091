package sealed

import (
	"fmt"
	"math"
	"sort"
)

// What the size law charges an object for, in bytes (§4).
const (
	slotCost = 112  // each slot that a part of MinPartSize may take
	maxSlots = 9999 // most of them; a part costs less than a slot, so that they are enough for MaxParts
	baseCost = 176  // each object
)

// MaxTail is what no tail exceeds, in bytes.
const MaxTail = maxSlots*slotCost + baseCost

// Size is the size law F of §4: the number of bytes stored for an object of n plaintext bytes, however it was uploaded.
// It is strictly increasing over [0, MaxLength]. Above, no object exists and Size is math.MaxInt64, which no backend
// takes; below zero it is -1.
func Size(n int64) int64 {
	switch {
	case n < 0:
		return -1
	case n > MaxLength:
		return math.MaxInt64
	}
	return n + TagSize*(n/ChunkSize) + slotCost*slots(n) + baseCost
}

// slots is how many slots n plaintext bytes are charged for.
func slots(n int64) int64 { return min(maxSlots, mostParts(n)) }

// mostParts is the largest number of parts that n plaintext bytes can come in.
func mostParts(n int64) int64 { return min(MaxParts, 1+n/MinPartSize) }

// PlainSize inverts Size: the plaintext length of an object that is stored in the given number of bytes.
// ok is false where no object has that size, so that what is stored is not ours.
// The answer is only as true as its source: a provider may lie about sizes in a list, and opening tells.
func PlainSize(stored int64) (n int64, ok bool) {
	n = MaxPlain(stored)
	return n, n >= 0 && Size(n) == stored
}

// MaxPlain is the largest plaintext length whose sealed object fits into the given number of stored bytes;
// -1 where not even an empty object does.
func MaxPlain(stored int64) int64 {
	if stored < Size(0) {
		return -1
	}
	most := min(stored-Size(0), MaxLength)
	least := max(0, most-(Size(most)-most)) // the overhead grows with n, so most's is enough
	return least + int64(sort.Search(int(most-least), func(i int) bool { return Size(least+int64(i)+1) > stored }))
}

// CheckSize compares a stored size with the plaintext length that was authenticated for it. It fails with ErrCorrupt.
func CheckSize(stored, n int64) error {
	if want := Size(n); stored != want || want < 0 {
		return fmt.Errorf("%w: %d bytes stored for %d of plaintext, want %d", ErrCorrupt, stored, n, want)
	}
	return nil
}

// MessageSize is |M|(n) of §1: the number of bytes of a message of n plaintext bytes, such as a part. n is not negative.
func MessageSize(n int64) int64 {
	return HeaderSize + n + TagSize*(n/ChunkSize+1)
}

// trailerSize is |T| of §4 for a number of parts.
func trailerSize(parts int) int64 {
	return MessageSize(tableHeadSize + entrySize*int64(parts))
}

func badSize(stored int64) error {
	return fmt.Errorf("%w: no object is stored in %d bytes", ErrCorrupt, stored)
}

// PartsOf is the number of parts whose trailer is a message of the given bytes; 0 where there is no such number.
// It inverts |T| of §4, and is only as true as the footer that says that size.
func PartsOf(trailer int64) int {
	n := sort.Search(MaxParts, func(i int) bool { return trailerSize(i+1) >= trailer }) + 1
	if n > MaxParts || trailerSize(n) != trailer {
		return 0
	}
	return n
}
