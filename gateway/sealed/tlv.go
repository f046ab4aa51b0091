package sealed

import (
	"encoding/binary"
	"fmt"
	"math"
)

// TLV types of §3. From tlvCritical on, a reader that does not know a type must refuse the envelope.
const (
	tlvContentType        = 1
	tlvContentEncoding    = 2
	tlvContentDisposition = 3
	tlvContentLanguage    = 4
	tlvCacheControl       = 5
	tlvExpires            = 6
	tlvRedirect           = 7
	tlvUserMetadata       = 16
	tlvChecksum           = 32
	tlvMD5                = 33
	tlvLateChecksum       = 34
	tlvLateMD5            = 35
	tlvCritical           = 128

	tlvHeadSize = 3 // u8 type, u16 length
	md5Size     = 16
)

// header is the attribute that a type stands for, or nil if it is not a plain header.
func (a *Attributes) header(tlv byte) *string {
	switch tlv {
	case tlvContentType:
		return &a.ContentType
	case tlvContentEncoding:
		return &a.ContentEncoding
	case tlvContentDisposition:
		return &a.ContentDisposition
	case tlvContentLanguage:
		return &a.ContentLanguage
	case tlvCacheControl:
		return &a.CacheControl
	case tlvExpires:
		return &a.Expires
	case tlvRedirect:
		return &a.Redirect
	}
	return nil
}

// append appends the TLVs of a, in ascending order of types. It fails with ErrTooLarge and ErrRange.
func (a *Attributes) append(b []byte) (_ []byte, err error) {
	for tlv := byte(tlvContentType); tlv <= tlvRedirect; tlv++ {
		if v := *a.header(tlv); v != "" {
			b, err = appendTLV(b, err, tlv, []byte(v))
		}
	}
	for _, p := range a.UserMetadata {
		b, err = appendTLV(b, err, tlvUserMetadata, append(appendLP(nil, p.Name), p.Value...))
	}
	for _, c := range a.Checksums {
		if err == nil {
			err = c.check()
		}
		b, err = appendTLV(b, err, tlvChecksum, c.encode())
	}
	if a.MD5 != nil {
		if err == nil && len(a.MD5) != md5Size {
			err = fmt.Errorf("%w: MD5 of %d bytes", ErrRange, len(a.MD5))
		}
		b, err = appendTLV(b, err, tlvMD5, a.MD5)
	}
	if a.LateChecksum != NoChecksum {
		b, err = appendTLV(b, err, tlvLateChecksum, []byte{byte(a.LateChecksum)})
	}
	if a.LateMD5 {
		b, err = appendTLV(b, err, tlvLateMD5, nil)
	}
	return append(b, a.unknown...), err
}

// appendTLV appends one TLV unless err says that an earlier one failed.
func appendTLV(b []byte, err error, tlv byte, v []byte) ([]byte, error) {
	if err == nil && len(v) > math.MaxUint16 {
		err = fmt.Errorf("%w: attribute of %d bytes", ErrTooLarge, len(v))
	}
	if err != nil {
		return b, err
	}
	b = binary.BigEndian.AppendUint16(append(b, tlv), uint16(len(v)))
	return append(b, v...), nil
}

// parse reads TLVs to the end of b. It fails with ErrCorrupt, and with ErrUnsupported for a critical type of a later version.
func (a *Attributes) parse(b []byte) error {
	for len(b) > 0 {
		if len(b) < tlvHeadSize {
			return fmt.Errorf("%w: attribute cut", ErrCorrupt)
		}
		end := tlvHeadSize + int(binary.BigEndian.Uint16(b[1:]))
		if end > len(b) {
			return fmt.Errorf("%w: attribute of type %d cut", ErrCorrupt, b[0])
		}
		if err := a.set(b[0], b[tlvHeadSize:end], b[:end]); err != nil {
			return err
		}
		b = b[end:]
	}
	return nil
}

// set takes up one TLV: its value v, and all of it for the case that nothing is known of it.
func (a *Attributes) set(tlv byte, v, all []byte) error {
	if h := a.header(tlv); h != nil {
		if *h != "" || len(v) == 0 {
			return fmt.Errorf("%w: attribute of type %d empty or repeated", ErrCorrupt, tlv)
		}
		*h = string(v)
		return nil
	}
	switch {
	case tlv == tlvUserMetadata:
		return a.setPair(v)
	case tlv == tlvChecksum:
		return a.setChecksum(v)
	case tlv == tlvMD5:
		return a.setMD5(v)
	case tlv == tlvLateChecksum:
		return a.setLate(v)
	case tlv == tlvLateMD5:
		return a.setLateMD5(v)
	case tlv >= tlvCritical:
		return fmt.Errorf("%w: attribute of type %d", ErrUnsupported, tlv)
	}
	a.unknown = append(a.unknown, all...)
	return nil
}

func (a *Attributes) setPair(v []byte) error {
	if len(v) < 4 || uint64(binary.BigEndian.Uint32(v)) > uint64(len(v)-4) {
		return fmt.Errorf("%w: user metadata cut", ErrCorrupt)
	}
	end := 4 + int(binary.BigEndian.Uint32(v))
	a.UserMetadata = append(a.UserMetadata, Pair{Name: string(v[4:end]), Value: string(v[end:])})
	return nil
}

func (a *Attributes) setMD5(v []byte) error {
	if a.MD5 != nil || len(v) != md5Size {
		return fmt.Errorf("%w: MD5 repeated or of %d bytes", ErrCorrupt, len(v))
	}
	a.MD5 = append([]byte(nil), v...)
	return nil
}

func (a *Attributes) setLate(v []byte) error {
	if a.LateChecksum != NoChecksum || len(v) != 1 || v[0] == 0 {
		return fmt.Errorf("%w: late checksum repeated or of %d bytes", ErrCorrupt, len(v))
	}
	a.LateChecksum = Algorithm(v[0])
	return nil
}

func (a *Attributes) setLateMD5(v []byte) error {
	if a.LateMD5 || len(v) != 0 {
		return fmt.Errorf("%w: late MD5 repeated or of %d bytes", ErrCorrupt, len(v))
	}
	a.LateMD5 = true
	return nil
}

func (a *Attributes) setChecksum(v []byte) error {
	if len(v) < 2 {
		return fmt.Errorf("%w: checksum of %d bytes", ErrCorrupt, len(v))
	}
	c := Checksum{Algorithm: Algorithm(v[0]), Scope: Scope(v[1]), Value: append([]byte(nil), v[2:]...)}
	if n := len(c.Value) - 2; c.Scope == Composite && n >= 0 {
		c.Parts, c.Value = int(binary.BigEndian.Uint16(c.Value[n:])), c.Value[:n]
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %s", ErrCorrupt, err.Error())
	}
	a.Checksums = append(a.Checksums, c)
	return nil
}

// encode is u8 algorithm, u8 scope, value and, for a composite, u16 parts.
func (c Checksum) encode() []byte {
	b := append([]byte{byte(c.Algorithm), byte(c.Scope)}, c.Value...)
	if c.Scope == Composite {
		b = binary.BigEndian.AppendUint16(b, uint16(c.Parts))
	}
	return b
}

// check fails with ErrRange for what §3 does not allow.
func (c Checksum) check() error {
	size, known := c.Algorithm.size()
	composite := c.Scope == Composite && c.Parts >= 1 && c.Parts <= MaxParts
	full := c.Scope == FullObject && c.Parts == 0
	if !known || len(c.Value) != size || composite == full {
		return fmt.Errorf("%w: checksum of algorithm %d, scope %d, %d bytes, %d parts", ErrRange, c.Algorithm, c.Scope, len(c.Value), c.Parts)
	}
	return nil
}

// size is the length of a value in bytes.
func (a Algorithm) size() (n int, known bool) {
	switch a {
	case CRC32, CRC32C:
		return 4, true
	case CRC64NVME, XXHASH64, XXHASH3:
		return 8, true
	case MD5, XXHASH128:
		return 16, true
	case SHA1:
		return 20, true
	case SHA256:
		return 32, true
	case SHA512:
		return maxChecksum, true
	}
	return 0, false
}
