package azurestore

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"

	"chatelaine/backends"
)

const (
	// markName is metadata that tells one conditional write from all others, so that it
	// can be recognised after its answer was lost. keyName is the key of an upload.
	// encodeMeta makes neither: no hexadecimal digits follow the underscore.
	markName = "chatelaine_write"
	keyName  = "chatelaine_key"
	// maxMetadata is Azure's limit of names and values together.
	maxMetadata = 8 << 10
)

// encodeMeta writes a name as the C# identifier that Azure wants: what is neither letter
// nor digit, and a digit in front, becomes _ and two hexadecimal digits.
func encodeMeta(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// decodeMeta undoes encodeMeta. A name that it never makes is its own.
func decodeMeta(name string) string {
	lower := strings.ToLower(name)
	var b strings.Builder
	for i := 0; i < len(lower); i++ {
		if lower[i] != '_' {
			b.WriteByte(lower[i])
			continue
		}
		if i+3 > len(lower) {
			return lower
		}
		c, err := hex.DecodeString(lower[i+1 : i+3])
		if err != nil {
			return lower
		}
		b.WriteByte(c[0])
		i += 2
	}
	if encodeMeta(b.String()) != lower {
		return lower
	}
	return b.String()
}

// properties are what goes with a write.
type properties struct {
	headers  *blob.HTTPHeaders
	metadata map[string]*string
	tags     map[string]string // encoded
}

// newProperties checks attributes and adds metadata of the driver's own.
func newProperties(attrs backends.Attributes, own map[string]string) (properties, error) {
	if err := attrs.Check(); err != nil {
		return properties{}, err
	}
	if !attrs.Lock.IsZero() {
		return properties{}, backends.ErrNoLock
	}
	tags, err := encodeTags(attrs.Tags)
	if err != nil {
		return properties{}, err
	}
	p := properties{metadata: map[string]*string{}, tags: tags}
	if attrs.ContentType != "" {
		p.headers = &blob.HTTPHeaders{BlobContentType: &attrs.ContentType}
	}
	size := 0
	add := func(name, value string) {
		p.metadata[name] = &value
		size += len(name) + len(value)
	}
	for name, value := range attrs.Metadata {
		add(encodeMeta(name), value)
	}
	for name, value := range own {
		add(name, value)
	}
	if size > maxMetadata {
		return properties{}, fmt.Errorf("%w: %d bytes of metadata on Azure, at most %d", backends.ErrTooLarge, size, maxMetadata)
	}
	return p, nil
}

// metadataOf is an answer's metadata without the driver's own.
func metadataOf(answer map[string]*string) map[string]string {
	var out map[string]string
	for name, value := range answer {
		name := strings.ToLower(name)
		if name == markName || name == keyName {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(answer))
		}
		out[decodeMeta(name)] = deref(value)
	}
	return out
}

// own is one of the driver's own entries of an answer's metadata.
func own(answer map[string]*string, name string) string {
	for n, value := range answer {
		if strings.EqualFold(n, name) {
			return deref(value)
		}
	}
	return ""
}
