package gcsstore_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
)

// tagsOf are ten tags of the longest names and values, of this character.
func tagsOf(char string) backends.Tags {
	tags := backends.Tags{}
	for i := range backends.MaxTags {
		tags[fmt.Sprint(i)+strings.Repeat(char, 127)] = strings.Repeat(char, 256)
	}
	return tags
}

func TestTagsThatDoNotFitIntoTheMetadataAreRefused(t *testing.T) {
	t.Parallel()
	s, _, id := faulty(t)
	metadata := map[string]string{"cho1": strings.Repeat("x", backends.MaxMetadata-len("cho1"))}
	large := backends.Attributes{Metadata: metadata, Tags: tagsOf("x")}
	if _, err := s.Put(t.Context(), id, text("x"), &backends.PutOptions{Attributes: large}); err != nil {
		t.Errorf("the largest tags of ASCII with the largest metadata: %v", err)
	}
	if _, err := s.SetTags(t.Context(), id, tagsOf("y")); err != nil {
		t.Errorf("setting them: %v", err)
	}
	if _, err := s.SetTags(t.Context(), id, tagsOf("漢")); !errors.Is(err, backends.ErrTooLarge) {
		t.Errorf("setting larger ones: got %v, want ErrTooLarge", err)
	}
	if got, _, err := s.Tags(t.Context(), id); err != nil || !maps.Equal(got, tagsOf("y")) {
		t.Errorf("they were changed all the same: %d tags, %v", len(got), err)
	}
	other := backends.ObjectID{Bucket: id.Bucket, Key: "other"}
	large.Tags = tagsOf("漢")
	_, putErr := s.Put(t.Context(), other, text("x"), &backends.PutOptions{Attributes: large})
	_, copyErr := s.Copy(t.Context(), id, other, &backends.CopyOptions{Attributes: large})
	_, uploadErr := s.CreateUpload(t.Context(), other.Bucket, other.Key, large)
	for what, err := range map[string]error{"put": putErr, "copy": copyErr, "upload": uploadErr} {
		if !errors.Is(err, backends.ErrTooLarge) {
			t.Errorf("%s: got %v, want ErrTooLarge", what, err)
		}
	}
	lacks(t, s, other)
}

func TestTagsOfAnyCharactersComeBack(t *testing.T) {
	t.Parallel()
	s, _, id := faulty(t)
	want := backends.Tags{"a\"\\/<>&": "\x01\x7f\u2028", "😀": "größe 漢字", " ": " "}
	if _, err := s.Put(t.Context(), id, text("x"), &backends.PutOptions{Attributes: backends.Attributes{Tags: want}}); err != nil {
		t.Fatal(err)
	}
	o, err := s.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = o.Body.Close()
	got, _, err := s.Tags(t.Context(), id)
	if err != nil || !maps.Equal(got, want) || o.TagCount != len(want) {
		t.Errorf("got %q, %v, and %d by Get; want %q", got, err, o.TagCount, want)
	}
}

// A change of metadata changes the time that the service tells of an object.
func TestTagsChangeNeitherETagNorTimeOfWhatIsRead(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	put(t, s, id, "x")
	before, err := s.Head(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetTags(t.Context(), id, backends.Tags{"a": "1"}); err != nil {
		t.Fatal(err)
	}
	b.with(hits("read", 0, 1, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		pass.ServeHTTP(&later{w}, r)
	}))
	after, err := s.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = after.Body.Close()
	if !after.Modified.Equal(before.Modified) || after.ETag != before.ETag {
		t.Errorf("%v and %q became %v and %q", before.Modified, before.ETag, after.Modified, after.ETag)
	}
}

// later answers that what is read was changed in the year 2100.
type later struct{ http.ResponseWriter }

func (l *later) WriteHeader(code int) {
	l.Header().Set("Last-Modified", "Fri, 01 Jan 2100 00:00:00 GMT")
	l.ResponseWriter.WriteHeader(code)
}

func TestSettingTagsIsRepeated(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	put(t, s, id, "x")
	want := backends.Tags{"a": "1"}
	b.with(hits("PATCH", 0, 1, lose))
	if _, err := s.SetTags(t.Context(), id, want); err != nil || b.count("PATCH") != 2 {
		t.Errorf("%v after %d requests, want success after 2", err, b.count("PATCH"))
	}
	b.with(nil)
	if got, _, err := s.Tags(t.Context(), id); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTagsThatAreDamagedAreNotTakenForNone(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	o := others(t, b.url).Bucket(id.Bucket).Object(id.Key)
	if err := putForeign(t.Context(), o, []byte("x"), storage.ObjectAttrs{Metadata: map[string]string{"chatelaine-tags": "{"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Tags(t.Context(), id); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}
