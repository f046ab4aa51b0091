package objects

import (
	"errors"
	"fmt"
	"sort"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

const octetStream = "application/octet-stream"

// toSealed puts a client's attributes into the form of the envelope.
func (a Attributes) toSealed() sealed.Attributes {
	out := sealed.Attributes{
		ContentType: a.ContentType, ContentEncoding: a.ContentEncoding, ContentDisposition: a.ContentDisposition,
		ContentLanguage: a.ContentLanguage, CacheControl: a.CacheControl, Expires: a.Expires, Redirect: a.Redirect,
	}
	for name, value := range a.Metadata {
		out.UserMetadata = append(out.UserMetadata, sealed.Pair{Name: name, Value: value})
	}
	sort.Slice(out.UserMetadata, func(i, j int) bool { return out.UserMetadata[i].Name < out.UserMetadata[j].Name })
	return out
}

func fromSealed(a sealed.Attributes) Attributes {
	out := Attributes{
		ContentType: a.ContentType, ContentEncoding: a.ContentEncoding, ContentDisposition: a.ContentDisposition,
		ContentLanguage: a.ContentLanguage, CacheControl: a.CacheControl, Expires: a.Expires, Redirect: a.Redirect,
		Metadata: make(map[string]string, len(a.UserMetadata)),
	}
	for _, p := range a.UserMetadata {
		out.Metadata[p.Name] = p.Value
	}
	return out
}

// storedAttributes are what the provider sees of an object: a type that says
// nothing, the envelope, and what the provider has to act on.
func (s *Service) storedAttributes(b keys.Bucket, key string, bk keys.BucketKey, e sealed.Envelope, at StoreAttributes) (backends.Attributes, error) {
	header, err := s.suite.SealEnvelope(bk.ID, bk.Key, nameOf(b, key), e)
	if errors.Is(err, sealed.ErrTooLarge) {
		return backends.Attributes{}, fmt.Errorf("objects: %w: %w", ErrMetadataTooLarge, err)
	}
	if err != nil {
		return backends.Attributes{}, fmt.Errorf("objects: sealing the envelope: %w", err)
	}
	metadata := map[string]string{sealed.MetadataName: header}
	return backends.Attributes{ContentType: octetStream, Metadata: metadata, Tags: at.Tags, Lock: at.Lock}, nil
}

// openEnvelope authenticates what the store says of an object. The id is that of
// the bucket key.
func (s *Service) openEnvelope(b keys.Bucket, key string, info backends.Info, find keyFinder) (sealed.Envelope, [16]byte, error) {
	header, ok := info.Attributes.Metadata[sealed.MetadataName]
	if !ok {
		return sealed.Envelope{}, [16]byte{}, fmt.Errorf("objects: opening %q: %w", key, ErrNotSealed)
	}
	id, err := sealed.EnvelopeKeyID(header)
	if err != nil {
		return sealed.Envelope{}, [16]byte{}, fmt.Errorf("objects: opening %q: %w: %w", key, ErrNotSealed, err)
	}
	bk, err := find(id)
	if err != nil {
		return sealed.Envelope{}, [16]byte{}, fmt.Errorf("objects: finding the key of %q: %w", key, err)
	}
	e, err := s.suite.OpenEnvelope(header, bk.Key, nameOf(b, key))
	if err != nil {
		return sealed.Envelope{}, [16]byte{}, fmt.Errorf("objects: opening the envelope of %q: %w", key, err)
	}
	return e, id, nil
}

// keyFinder finds a bucket key by its id.
type keyFinder func(id sealed.KeyID) (keys.BucketKey, error)

// stat puts together what clients see of an object.
func stat(b keys.Bucket, info backends.Info, e sealed.Envelope, size int64, etag string) Stat {
	return Stat{
		Key: info.Key, Size: size, ETag: etag, Modified: info.Modified, Version: info.Version,
		Class: info.Class, TagCount: info.TagCount, Lock: info.Attributes.Lock, Attributes: fromSealed(e.Attributes), Checksums: checksumsOf(e.Attributes), KEK: b.KEK,
	}
}

func checksumsOf(a sealed.Attributes) []Checksum {
	out := make([]Checksum, 0, len(a.Checksums))
	for _, c := range a.Checksums {
		out = append(out, fromSealedChecksum(c))
	}
	return out
}
