package gcsstore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// Tags are one entry of the metadata, which a change replaces as a whole: JSON in ASCII.
// As any change of metadata changes the time that reads tell, the entry has that of the
// object beside it.
const (
	tagsName     = own + "tags"
	modifiedName = own + "modified"
	// maxProperties is what metadata and tags may have together of the 8 KiB that the
	// service takes: the key of an upload, in Base64, and what else is the driver's own
	// has the rest. The largest metadata fit with the largest tags of ASCII.
	maxProperties = 8<<10 - 1536
)

func encodeTags(tags backends.Tags) (string, error) {
	if tags == nil {
		tags = backends.Tags{}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(tags); err != nil {
		return "", err
	}
	return ascii(strings.TrimSuffix(b.String(), "\n")), nil
}

// ascii escapes what is not, within strings of JSON.
func ascii(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r < ' ' || r == 0x7f || r > 0x7f && r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func decodeTags(metadata map[string]string) (backends.Tags, error) {
	text, ok := metadata[tagsName]
	if !ok {
		return nil, nil
	}
	var tags backends.Tags
	if err := json.Unmarshal([]byte(text), &tags); err != nil {
		return nil, fmt.Errorf("%w: %w: its tags", backends.ErrUnavailable, cloud.ErrMalformed)
	}
	if len(tags) == 0 {
		return nil, nil
	}
	return tags, nil
}

// countTags is 0 where they cannot be read: Tags says why.
func countTags(metadata map[string]string) int {
	tags, err := decodeTags(metadata)
	if err != nil {
		return 0
	}
	return len(tags)
}

// checkFits says with ErrTooLarge that tags do not fit beside metadata.
func checkFits(metadata map[string]string, encoded string) error {
	size := len(encoded)
	for name, value := range metadata {
		if !strings.HasPrefix(strings.ToLower(name), own) {
			size += len(name) + len(value)
		}
	}
	if size > maxProperties {
		return fmt.Errorf("%w: tags and metadata of %d bytes, at most %d", backends.ErrTooLarge, size, maxProperties)
	}
	return nil
}

// Tags implements backends.Tagger.
func (s *Store) Tags(ctx context.Context, id backends.ObjectID) (backends.Tags, string, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("reading the tags of %q", id.Key)
	attrs, st, err := s.lookAt(ctx, id)
	if err != nil {
		return nil, "", wrap(ctx, doing, err)
	}
	tags, err := decodeTags(attrs.Metadata)
	return tags, st.name(attrs.Generation, kindOf(attrs)), wrap(ctx, doing, err)
}

// lookAt is look, and tells a missing bucket from a missing object.
func (s *Store) lookAt(ctx context.Context, id backends.ObjectID) (*storage.ObjectAttrs, state, error) {
	at, err := checkID(id)
	if err != nil {
		return nil, state{}, err
	}
	attrs, st, err := s.look(ctx, at, id.Version)
	return attrs, st, s.missing(ctx, err, id.Bucket)
}

// SetTags implements backends.Tagger. ErrTooLarge where they do not fit into the
// service's 8 KiB beside the metadata. The generation stays, and with it the ETag.
func (s *Store) SetTags(ctx context.Context, id backends.ObjectID, tags backends.Tags) (string, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("setting the tags of %q", id.Key)
	if err := tags.Check(); err != nil {
		return "", wrap(ctx, doing, err)
	}
	encoded, err := encodeTags(tags)
	if err != nil {
		return "", wrap(ctx, doing, err)
	}
	attrs, st, err := s.lookAt(ctx, id)
	if err == nil {
		err = checkFits(attrs.Metadata, encoded)
	}
	if err != nil {
		return "", wrap(ctx, doing, err)
	}
	_, err = s.object(place{id.Bucket, id.Key}).Generation(attrs.Generation).Update(ctx, storage.ObjectAttrsToUpdate{
		Metadata: map[string]string{tagsName: encoded, modifiedName: attrs.Created.UTC().Format(time.RFC3339Nano)},
	})
	if statusOf(err) == http.StatusNotFound {
		err = nil // it was replaced or deleted since, and its tags with it
	}
	return st.name(attrs.Generation, kindOf(attrs)), wrap(ctx, doing, err)
}
