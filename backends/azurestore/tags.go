package azurestore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"chatelaine/backends"
)

// Azure's limits of an index tag, in characters ("Set Blob Tags").
const (
	maxTagKey   = 128
	maxTagValue = 256
)

const (
	// tagLead begins the code of a character that tags on Azure cannot have. It is one that
	// they can, and has a code itself.
	tagLead = '='
	// tagEmpty is an empty value: Azurite takes none.
	tagEmpty = string(tagLead)
)

// tagLetters are those that stand for themselves, beside ASCII's letters and digits. With
// tagLead they are all that Azure takes.
const tagLetters = " +-./:_"

// tagTails are the codes of names, and for what is left of ASCII a digit that they leave
// free.
func tagTails() []tail { return append(tails(), tail{0, 'z', 55, 1}) }

// encodeTag writes a tag's key or value in the letters that Azure has for them.
func encodeTag(text string) string {
	if text == "" {
		return tagEmpty
	}
	var b strings.Builder
	for _, r := range text {
		if '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || strings.ContainsRune(tagLetters, r) {
			b.WriteRune(r)
			continue
		}
		b.WriteByte(tagLead)
		writeDigits(&b, tagTails(), r)
	}
	return b.String()
}

// decodeTag undoes encodeTag. What that never makes, somebody else has set: it is itself.
func decodeTag(text string) string {
	if text == tagEmpty {
		return ""
	}
	var b strings.Builder
	for rest := text; rest != ""; {
		if rest[0] != tagLead {
			b.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		r, n := readDigits(rest[1:], tagTails())
		if n == 0 {
			return text
		}
		b.WriteRune(r)
		rest = rest[1+n:]
	}
	if encodeTag(b.String()) != text {
		return text
	}
	return b.String()
}

// encodeTags checks tags and writes them as Azure has them; backends.ErrInvalidTag where
// one does not fit.
func encodeTags(tags backends.Tags) (map[string]string, error) {
	if err := tags.Check(); err != nil {
		return nil, err
	}
	encoded := make(map[string]string, len(tags))
	for key, value := range tags {
		k, v := encodeTag(key), encodeTag(value)
		if len(k) > maxTagKey || len(v) > maxTagValue {
			return nil, fmt.Errorf("%w: %w: tag %.80q is %d letters on Azure and its value %d, at most %d and %d",
				backends.ErrInvalidTag, backends.ErrTooLarge, key, len(k), len(v), maxTagKey, maxTagValue)
		}
		encoded[k] = v
	}
	return encoded, nil
}

// Tags implements backends.Tagger. Accounts without index tags, as those with a
// hierarchical namespace, are ErrUnsupported.
func (s *Store) Tags(ctx context.Context, id backends.ObjectID) (backends.Tags, string, error) {
	doing := fmt.Sprintf("reading the tags of %q", id.Key)
	name, err := checkID(id)
	if err != nil {
		return nil, "", fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	encoded, err := s.readTags(ctx, place{id.Bucket, name})
	if err != nil {
		return nil, "", wrap(ctx, doing, err)
	}
	var tags backends.Tags
	for key, value := range encoded {
		if tags == nil {
			tags = make(backends.Tags, len(encoded))
		}
		tags[decodeTag(key)] = decodeTag(value)
	}
	return tags, "", nil
}

// readTags are a blob's tags as Azure has them.
func (s *Store) readTags(ctx context.Context, at place) (map[string]string, error) {
	out, err := s.blob(at.bucket, at.name).GetTags(ctx, nil)
	if err != nil {
		return nil, noTags(err)
	}
	tags := make(map[string]string, len(out.BlobTagSet))
	for _, t := range out.BlobTagSet {
		if t != nil {
			tags[deref(t.Key)] = deref(t.Value)
		}
	}
	return tags, nil
}

// SetTags implements backends.Tagger. It changes neither the ETag nor the time.
func (s *Store) SetTags(ctx context.Context, id backends.ObjectID, tags backends.Tags) (string, error) {
	doing := fmt.Sprintf("setting the tags of %q", id.Key)
	name, err := checkID(id)
	encoded, tagsErr := encodeTags(tags)
	if err := firstError(err, tagsErr); err != nil {
		return "", fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	_, err = s.blob(id.Bucket, name).SetTags(ctx, encoded, nil)
	return "", wrap(ctx, doing, noTags(err))
}

// noTags is ErrUnsupported for an account that does not know comp=tags at all, which is
// how those with a hierarchical namespace say that they have none.
func noTags(err error) error {
	var answer *azcore.ResponseError
	if errors.As(err, &answer) && bloberror.HasCode(err, bloberror.InvalidQueryParameterValue) {
		return fmt.Errorf("%w: %w", errNoTags, newAnswerError(answer))
	}
	return err
}
