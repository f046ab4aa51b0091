package backendtest

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"chatelaine/backends"
)

func tagTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"ComeWithTheObject":                   tagsPut,
		"AreReplacedAsAWhole":                 tagsReplaced,
		"ChangeNothingElse":                   tagsAside,
		"GoWithTheObject":                     tagsGo,
		"AreThoseThatCompleteAndCopyAreGiven": tagsElsewhere,
		"BelongToAVersion":                    tagsOfVersions,
		"AreReportedWhereTheyAreMissing":      tagsMissing,
		"RefuseTooManyAndTooLong":             tagsTooMany,
		"AreThoseOfOneWriterWhenManyWrite":    tagsConcurrent,
		"EndWithTheirContext":                 tagsCancelled,
	}
}

// tagsRefused wants a store without tags to say so whatever they are given with: tags that
// are dropped are noticed by nobody.
func tagsRefused(f *fixture) {
	attrs := backends.Attributes{Tags: backends.Tags{"a": "1"}}
	_, err := f.store.Put(f.Context(), f.id("put"), bodyOf([]byte("x")), &backends.PutOptions{Attributes: attrs})
	f.is(err, backends.ErrUnsupported)
	if f.copier != nil {
		f.put("source", []byte("x"))
		_, err = f.copy("source", "copy", &backends.CopyOptions{Attributes: attrs})
		f.is(err, backends.ErrUnsupported)
	}
	if f.parts != nil {
		up, err := f.parts.CreateUpload(f.Context(), f.bucket, "parts", attrs)
		if err == nil {
			_, err = f.complete(up, []backends.Part{f.part(up, 1, []byte("x"))})
		}
		f.is(err, backends.ErrUnsupported)
	}
	for _, key := range []string{"put", "copy", "parts"} {
		f.lacks(key)
	}
}

func (f *fixture) putTagged(key string, tags backends.Tags) backends.Written {
	f.Helper()
	w, err := f.store.Put(f.Context(), f.id(key), bodyOf([]byte("x")), &backends.PutOptions{Attributes: backends.Attributes{Tags: tags}})
	f.ok(err)
	return w
}

// tagged wants an object to have these tags, by any way of looking.
func (f *fixture) tagged(key, version string, want backends.Tags) {
	f.Helper()
	got, _, err := f.tagger.Tags(f.Context(), f.version(key, version))
	f.ok(err)
	if !maps.Equal(got, want) {
		f.Fatalf("%q has tags %q, want %q", key, got, want)
	}
	info, err := f.store.Head(f.Context(), f.version(key, version), nil)
	f.ok(err)
	o, err := f.store.Get(f.Context(), f.version(key, version), nil)
	f.ok(err)
	f.ok(o.Body.Close())
	if info.TagCount != len(want) || o.TagCount != len(want) || len(info.Attributes.Tags) != 0 {
		f.Fatalf("%q: Head says %d tags, Get %d, want %d", key, info.TagCount, o.TagCount, len(want))
	}
}

func (f *fixture) setTags(key, version string, tags backends.Tags) {
	f.Helper()
	_, err := f.tagger.SetTags(f.Context(), f.version(key, version), tags)
	f.ok(err)
}

func tagsPut(f *fixture) {
	f.put("none", nil)
	f.tagged("none", "", nil)
	want := backends.Tags{"name": "value", "empty": "", "a b+c=d/e:f@g": "h i", "long": strings.Repeat("x", 256)}
	if !f.opts.PlainTags {
		want["a b+c=d/e:f@g"], want["größe"] = "ü & = ?%20", "日本 🗝"
	}
	if !f.opts.PlainTags && !f.opts.ShortTags {
		want["ü"] = strings.Repeat("ü", 256)
	}
	f.putTagged("key", want)
	f.tagged("key", "", want)
}

func tagsReplaced(f *fixture) {
	f.putTagged("key", backends.Tags{"a": "1", "b": "2"})
	for _, tags := range []backends.Tags{{"c": "3"}, {"a": "1", "c": "4"}, nil, {"d": "5"}, {}} {
		f.setTags("key", "", tags)
		f.tagged("key", "", tags)
	}
}

func tagsAside(f *fixture) {
	attrs := backends.Attributes{ContentType: "x/y", Metadata: map[string]string{"cho1": "envelope"}}
	_, err := f.store.Put(f.Context(), f.id("key"), bodyOf([]byte("data")), &backends.PutOptions{Attributes: attrs})
	f.ok(err)
	before, err := f.store.Head(f.Context(), f.id("key"), nil)
	f.ok(err)
	f.setTags("key", "", backends.Tags{"a": "1"})
	after, err := f.store.Head(f.Context(), f.id("key"), nil)
	f.ok(err)
	if after.ETag != before.ETag || !after.Modified.Equal(before.Modified) || after.Attributes.ContentType != "x/y" ||
		after.Attributes.Metadata["cho1"] != "envelope" || after.Size != 4 {
		f.Errorf("tags made %+v of %+v", after, before)
	}
	f.holds("key", []byte("data"))
	if got := f.listAll(backends.ListOptions{}); len(got) != 1 {
		f.Errorf("listed %q", got)
	}
}

func tagsGo(f *fixture) {
	f.put("key", nil)
	f.setTags("key", "", backends.Tags{"a": "1"})
	f.put("key", nil)
	f.tagged("key", "", nil)
	f.setTags("key", "", backends.Tags{"b": "2"})
	_, err := f.store.Delete(f.Context(), f.id("key"), nil)
	f.ok(err)
	f.putTagged("key", backends.Tags{"c": "3"})
	f.tagged("key", "", backends.Tags{"c": "3"})
}

func tagsElsewhere(f *fixture) {
	want := backends.Attributes{Tags: backends.Tags{"a": "1", "b": ""}}
	if f.parts != nil {
		up, err := f.parts.CreateUpload(f.Context(), f.bucket, "parts", want)
		f.ok(err)
		_, err = f.complete(up, []backends.Part{f.part(up, 1, []byte("x"))})
		f.ok(err)
		f.tagged("parts", "", want.Tags)
		f.setTags("parts", "", backends.Tags{"c": "3"})
		f.tagged("parts", "", backends.Tags{"c": "3"})
		f.holds("parts", []byte("x"))
	}
	if f.copier != nil {
		f.putTagged("source", backends.Tags{"of the": "source"})
		_, err := f.copy("source", "copy", &backends.CopyOptions{Attributes: want})
		f.ok(err)
		f.tagged("copy", "", want.Tags)
		_, err = f.copy("source", "copy", nil)
		f.ok(err)
		f.tagged("copy", "", nil)
		f.tagged("source", "", backends.Tags{"of the": "source"})
	}
}

func tagsOfVersions(f *fixture) {
	if f.versions == nil {
		f.Skip("the store has no versions")
	}
	f.putTagged("key", backends.Tags{"v": "null"})
	f.versioning(backends.VersioningEnabled)
	a := f.putTagged("key", backends.Tags{"v": "a"}).Version
	b := f.putVersion("key", nil)
	f.tagged("key", "", nil)
	f.tagged("key", a, backends.Tags{"v": "a"})
	f.tagged("key", "null", backends.Tags{"v": "null"})
	for _, version := range []string{a, "null", ""} {
		got, err := f.tagger.SetTags(f.Context(), f.version("key", version), backends.Tags{"set": version})
		f.ok(err)
		if want := map[string]string{a: a, "null": "null", "": b}[version]; got != want {
			f.Errorf("setting tags of version %q changed %q", version, got)
		}
	}
	if _, got, err := f.tagger.Tags(f.Context(), f.id("key")); got != b && !(got == "" && f.opts.NamelessTags) || err != nil {
		f.Errorf("the tags are said to be those of %q, %v; want %q", got, err, b)
	}
	f.tagged("key", a, backends.Tags{"set": a})
	f.tagged("key", "null", backends.Tags{"set": "null"})
	f.delete("key", b)
	f.tagged("key", "", backends.Tags{"set": a})
	m := f.mark("key")
	_, _, err := f.tagger.Tags(f.Context(), f.id("key"))
	f.is(err, backends.ErrNotFound, backends.ErrDeleteMarker)
	_, err = f.tagger.SetTags(f.Context(), f.version("key", m), nil)
	f.is(err, backends.ErrDeleteMarker)
	f.delete("key", m)
	f.tagged("key", "", backends.Tags{"set": a})
}

func tagsMissing(f *fixture) {
	_, _, err := f.tagger.Tags(f.Context(), f.id("missing"))
	f.is(err, backends.ErrNotFound)
	_, err = f.tagger.SetTags(f.Context(), f.id("missing"), backends.Tags{"a": "1"})
	f.is(err, backends.ErrNotFound)
	f.lacks("missing")
	none := backends.ObjectID{Bucket: bucketName(), Key: "key"}
	_, _, err = f.tagger.Tags(f.Context(), none)
	f.is(err, backends.ErrBucketNotFound)
	_, err = f.tagger.SetTags(f.Context(), none, nil)
	f.is(err, backends.ErrBucketNotFound)
}

func tagsTooMany(f *fixture) {
	f.putTagged("key", backends.Tags{"a": "1"})
	many := backends.Tags{}
	for i := range 11 {
		many[fmt.Sprint(i)] = "x"
	}
	for name, tags := range map[string]backends.Tags{"11 tags": many, "a name of 129": {strings.Repeat("n", 129): ""}, "a value of 257": {"n": strings.Repeat("v", 257)}} {
		if _, err := f.tagger.SetTags(f.Context(), f.id("key"), tags); err == nil {
			f.Errorf("%s were set", name)
		}
		_, err := f.store.Put(f.Context(), f.id("new"), bodyOf(nil), &backends.PutOptions{Attributes: backends.Attributes{Tags: tags}})
		if err == nil {
			f.Errorf("%s were put", name)
		}
	}
	f.tagged("key", "", backends.Tags{"a": "1"})
	f.lacks("new")
}

// tagsConcurrent wants tags that were set on one object never to be those of
// another.
func tagsConcurrent(f *fixture) {
	f.putTagged("key", backends.Tags{"put": "first"})
	f.each(8, func(i int) error {
		for round := range 10 {
			var err error
			switch data := fmt.Sprintf("%d-%d", i, round); {
			case i < 4:
				attrs := backends.Attributes{Tags: backends.Tags{"put": data}}
				_, err = f.store.Put(f.Context(), f.id("key"), bodyOf(nil), &backends.PutOptions{Attributes: attrs})
			default:
				_, err = f.tagger.SetTags(f.Context(), f.id("key"), backends.Tags{"set": data, "too": ""})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	f.putTagged("key", backends.Tags{"put": "last"})
	f.tagged("key", "", backends.Tags{"put": "last"})
}

func tagsCancelled(f *fixture) {
	f.putTagged("key", backends.Tags{"a": "1"})
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	_, _, err := f.tagger.Tags(ctx, f.id("key"))
	f.is(err, context.Canceled)
	_, err = f.tagger.SetTags(ctx, f.id("key"), nil)
	f.is(err, context.Canceled)
	f.tagged("key", "", backends.Tags{"a": "1"})
}
