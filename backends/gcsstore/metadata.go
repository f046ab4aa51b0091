package gcsstore

import (
	"fmt"
	"strings"

	"chatelaine/backends"
)

const (
	// own begins the names of the driver's own metadata. markName tells one write from
	// all others, so that it can be recognised after its answer was lost. keyName is the
	// key of an upload.
	own      = "chatelaine-"
	markName = own + "write"
	keyName  = own + "key"

	// anyType is the content type of objects that were given none: the service would
	// guess it from the bytes.
	anyType = "application/octet-stream"
)

// properties are what goes with a write.
type properties struct {
	contentType string
	metadata    map[string]string
}

// newProperties checks attributes. All that the driver adds fits into the 8 KiB that an
// object's metadata may have, beside the 2 KiB of the contract.
func newProperties(attrs backends.Attributes) (properties, error) {
	if err := attrs.Check(); err != nil {
		return properties{}, err
	}
	if !attrs.Lock.IsZero() {
		return properties{}, backends.ErrNoLock
	}
	p := properties{contentType: attrs.ContentType, metadata: make(map[string]string, len(attrs.Metadata)+1)}
	if p.contentType == "" {
		p.contentType = anyType
	}
	for name, value := range attrs.Metadata {
		if strings.HasPrefix(name, own) {
			return properties{}, fmt.Errorf("%w: metadata %q is the driver's own", backends.ErrInvalidName, name)
		}
		p.metadata[name] = value
	}
	if len(attrs.Tags) == 0 {
		return p, nil
	}
	encoded, err := encodeTags(attrs.Tags)
	if err != nil {
		return properties{}, err
	}
	p.metadata[tagsName] = encoded
	return p, checkFits(attrs.Metadata, encoded)
}

// with adds metadata of the driver's own.
func (p properties) with(name, value string) properties {
	if value != "" {
		p.metadata[name] = value
	}
	return p
}

// of adds what tells one write from others, and what version it is.
func (p properties) of(w write) properties {
	return p.with(markName, w.mark).with(kindName, string(w.st.object()))
}

// lower is the metadata of a read, which come as headers, whose names have no case.
func lower(answer map[string]string) map[string]string {
	out := make(map[string]string, len(answer))
	for name, value := range answer {
		out[strings.ToLower(name)] = value
	}
	return out
}

// metadataOf is an answer's metadata without the driver's own.
func metadataOf(answer map[string]string) map[string]string {
	var out map[string]string
	for name, value := range answer {
		name := strings.ToLower(name)
		if strings.HasPrefix(name, own) {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(answer))
		}
		out[name] = value
	}
	return out
}
