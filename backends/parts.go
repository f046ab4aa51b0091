package backends

import "fmt"

// CheckPartNumber says with ErrInvalidPart that number is not 1 to MaxParts.
func CheckPartNumber(number int) error {
	if number < 1 || number > MaxParts {
		return fmt.Errorf("%w: number %d", ErrInvalidPart, number)
	}
	return nil
}

// CheckParts compares the parts that a Complete names with those that the store
// has, and returns the latter in order. ErrInvalidPart: none, not in ascending
// order, not there, or of another ETag. ErrTooSmall: a part other than the last is
// below MinPart. Of want, only Number and ETag count.
func CheckParts(want []Part, have map[int]Part) ([]Part, error) {
	if len(want) == 0 {
		return nil, fmt.Errorf("%w: no parts are named", ErrInvalidPart)
	}
	parts := make([]Part, 0, len(want))
	for i, w := range want {
		p, ok := have[w.Number]
		if !ok || p.ETag != w.ETag || i > 0 && w.Number <= want[i-1].Number {
			return nil, fmt.Errorf("%w: number %d with ETag %q", ErrInvalidPart, w.Number, w.ETag)
		}
		parts = append(parts, p)
	}
	for _, p := range parts[:len(parts)-1] {
		if p.Size < MinPart {
			return nil, fmt.Errorf("%w: number %d has %d bytes", ErrTooSmall, p.Number, p.Size)
		}
	}
	return parts, nil
}
