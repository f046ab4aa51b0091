package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"

	"chatelaine/backends"
)

func copyTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"AreOfAllSizes":                       copySizes,
		"HaveTheAttributesThatAreGiven":       copyAttributes,
		"GoToOtherBucketsAndOntoThemselves":   copyPlaces,
		"RefuseASourceThatHasChanged":         copyChanged,
		"AreReportedWhereSomethingIsMissing":  copyMissing,
		"KeepTheConditionsOfTheirDestination": copyConditions,
		"OfPartsAreWhole":                     copyOfParts,
		"AreOfOneObjectWhileItIsReplaced":     copyConcurrent,
		"CanBeParts":                          copyParts,
		"OfPartsRefuseWhatIsNotThere":         copyPartsRefused,
		"EndWithTheirContext":                 copyCancelled,
		"TakeAtLeastAPart": func(f *fixture) {
			if got := f.copier.MaxCopy(); got < minPart {
				f.Errorf("MaxCopy is %d", got)
			}
		},
	}
}

func (f *fixture) copy(src, dst string, opts *backends.CopyOptions) (backends.Written, error) {
	return f.copier.Copy(f.Context(), f.id(src), f.id(dst), opts)
}

func copySizes(f *fixture) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 3<<20 + 7} {
		data := random(n, byte(n))
		f.put("source", data)
		w, err := f.copy("source", "a/copy", nil)
		f.ok(err)
		f.holds("a/copy", data)
		if info, err := f.store.Head(f.Context(), f.id("a/copy"), nil); err != nil || info.ETag != w.ETag || w.ETag == "" {
			f.Errorf("%d bytes: Head says %q, %v; Copy said %q", n, info.ETag, err, w.ETag)
		}
	}
	f.put("source", []byte("changed afterwards"))
	f.holds("a/copy", random(3<<20+7, byte((3<<20+7)&0xff)))
}

func copyAttributes(f *fixture) {
	before := backends.Attributes{ContentType: "old/type", Metadata: map[string]string{"cho1": "old", "gone": "x"}}
	_, err := f.store.Put(f.Context(), f.id("source"), bodyOf([]byte("x")), &backends.PutOptions{Attributes: before})
	f.ok(err)
	want := backends.Attributes{ContentType: "new/type", Metadata: map[string]string{"cho1": "new"}}
	_, err = f.copy("source", "copy", &backends.CopyOptions{Attributes: want})
	f.ok(err)
	for key, want := range map[string]backends.Attributes{"source": before, "copy": want} {
		info, err := f.store.Head(f.Context(), f.id(key), nil)
		f.ok(err)
		if got := info.Attributes; got.ContentType != want.ContentType || !maps.Equal(got.Metadata, want.Metadata) {
			f.Errorf("%s has %v, want %v", key, got, want)
		}
	}
	attrs := backends.Attributes{Metadata: map[string]string{"cho1": string(bytes.Repeat([]byte("x"), 3000))}}
	_, err = f.copy("source", "copy2", &backends.CopyOptions{Attributes: attrs})
	f.is(err, backends.ErrTooLarge)
	f.lacks("copy2")
}

func copyPlaces(f *fixture) {
	other := &fixture{T: f.T, capabilitySet: f.capabilitySet, store: f.store, bucket: bucketName(), opts: f.opts}
	f.ok(f.store.CreateBucket(f.Context(), other.bucket))
	f.put("a b+c/ü", []byte("x"))
	_, err := f.copier.Copy(f.Context(), f.id("a b+c/ü"), other.id("d e+f/ö"), nil)
	f.ok(err)
	other.holds("d e+f/ö", []byte("x"))
	attrs := backends.Attributes{Metadata: map[string]string{"cho1": "itself"}}
	_, err = f.copy("a b+c/ü", "a b+c/ü", &backends.CopyOptions{Attributes: attrs})
	f.ok(err)
	f.holds("a b+c/ü", []byte("x"))
	if o, _ := f.read("a b+c/ü", nil); o.Attributes.Metadata["cho1"] != "itself" {
		f.Errorf("metadata %v of a copy onto itself", o.Attributes.Metadata)
	}
	other.empty()
	f.ok(f.store.DeleteBucket(f.Context(), other.bucket))
}

func copyChanged(f *fixture) {
	old := f.put("source", []byte("old"))
	now := f.put("source", []byte("new"))
	_, err := f.copy("source", "copy", &backends.CopyOptions{SourceIfMatch: old.ETag})
	f.is(err, backends.ErrPrecondition)
	f.lacks("copy")
	_, err = f.copy("source", "copy", &backends.CopyOptions{SourceIfMatch: now.ETag})
	f.ok(err)
	f.holds("copy", []byte("new"))
}

func copyMissing(f *fixture) {
	f.put("source", nil)
	none := backends.ObjectID{Bucket: bucketName(), Key: "key"}
	_, err := f.copy("missing", "copy", nil)
	f.is(err, backends.ErrNotFound)
	_, err = f.copier.Copy(f.Context(), none, f.id("copy"), nil)
	f.is(err, backends.ErrBucketNotFound)
	_, err = f.copier.Copy(f.Context(), f.id("source"), none, nil)
	f.is(err, backends.ErrBucketNotFound)
	f.lacks("copy")
}

// copyConditions lets a store refuse all conditions, as the contract does.
func copyConditions(f *fixture) {
	f.put("source", []byte("new"))
	w := f.put("copy", []byte("old"))
	star, other := []string{"*"}, []string{"00000000000000000000000000000000"}
	for _, c := range []struct {
		dst  string
		cond backends.Conditions
		want error
	}{
		{"copy", backends.Conditions{IfNoneMatch: star}, backends.ErrPrecondition},
		{"copy", backends.Conditions{IfMatch: other}, backends.ErrPrecondition},
		{"missing", backends.Conditions{IfMatch: other}, backends.ErrNotFound},
		{"copy", backends.Conditions{IfMatch: []string{w.ETag}}, nil},
		{"copy2", backends.Conditions{IfNoneMatch: star}, nil},
	} {
		_, err := f.copy("source", c.dst, &backends.CopyOptions{Conditions: c.cond})
		if errors.Is(err, backends.ErrUnsupported) {
			continue
		}
		f.is(err, c.want)
		if c.want == nil {
			f.holds(c.dst, []byte("new"))
		} else if c.dst == "copy" {
			f.holds(c.dst, []byte("old"))
		}
	}
	f.lacks("missing")
}

func copyOfParts(f *fixture) {
	if f.parts == nil {
		f.Skip("the store has no multipart uploads")
	}
	data := [][]byte{random(minPart+1, 1), random(minPart, 2), random(10, 3)}
	up, parts := f.upload("source", data...)
	_, err := f.complete(up, parts)
	f.ok(err)
	whole := bytes.Join(data, nil)
	for _, dst := range []string{"copy", "source"} {
		_, err = f.copy("source", dst, &backends.CopyOptions{Attributes: backends.Attributes{Metadata: map[string]string{"cho1": dst}}})
		f.ok(err)
		f.holds(dst, whole)
	}
	partsRanges(f, "copy", whole)
	_, err = f.store.Delete(f.Context(), f.id("source"), nil)
	f.ok(err)
	f.holds("copy", whole)
}

func copyConcurrent(f *fixture) {
	versions := [][]byte{random(1<<20, 0), random(1<<20+9, 1)}
	f.put("source", versions[0])
	f.each(4, func(i int) error {
		for round := range 10 {
			if i == 0 {
				if _, err := f.putIf("source", versions[round%2], backends.Conditions{}); err != nil {
					return err
				}
				continue
			}
			key := fmt.Sprintf("copy-%d", i)
			if _, err := f.copy("source", key, nil); err != nil {
				return err
			}
			_, got, err := f.tryRead(key, nil)
			if err != nil || !bytes.Equal(got, versions[0]) && !bytes.Equal(got, versions[1]) {
				return fmt.Errorf("a copy of %d bytes is of neither object: %w", len(got), err)
			}
		}
		return nil
	})
}

func (f *fixture) copyPart(up backends.UploadID, number int, src string, r *backends.Range) backends.Part {
	f.Helper()
	p, err := f.copier.CopyPart(f.Context(), up, number, f.id(src), r, "")
	f.ok(err)
	if p.Number != number || p.ETag == "" {
		f.Fatalf("part %d is described as %+v", number, p)
	}
	return p
}

func copyParts(f *fixture) {
	if f.parts == nil {
		f.Skip("the store has no multipart uploads")
	}
	data := random(2*minPart+100, 1)
	f.put("source", data)
	up, _ := f.upload("copy")
	var parts []backends.Part
	parts = append(parts, f.copyPart(up, 1, "source", &backends.Range{Offset: 17, Length: minPart}))
	parts = append(parts, f.copyPart(up, 2, "source", nil))
	parts = append(parts, f.part(up, 3, data[:minPart]))
	parts = append(parts, f.copyPart(up, 9, "source", &backends.Range{Offset: int64(len(data)) - 1, Length: 1}))
	page, err := f.parts.ListParts(f.Context(), up, 0, 0)
	f.ok(err)
	for i, p := range page.Parts {
		if p.ETag != parts[i].ETag || p.Size != []int64{minPart, int64(len(data)), minPart, 1}[i] {
			f.Errorf("part %d is listed as %+v, CopyPart said %+v", i, p, parts[i])
		}
	}
	f.put("source", []byte("changed"))
	_, err = f.complete(up, parts)
	f.ok(err)
	f.holds("copy", bytes.Join([][]byte{data[17 : 17+minPart], data, data[:minPart], data[len(data)-1:]}, nil))
}

func copyPartsRefused(f *fixture) {
	if f.parts == nil {
		f.Skip("the store has no multipart uploads")
	}
	f.put("source", random(100, 1))
	up, _ := f.upload("copy")
	for _, r := range []backends.Range{{Offset: 0, Length: 101}, {Offset: 99, Length: 2}, {Offset: 100, Length: 1}, {Offset: 1000, Length: 1}} {
		_, err := f.copier.CopyPart(f.Context(), up, 1, f.id("source"), &r, "")
		f.is(err, backends.ErrRange)
	}
	_, err := f.copier.CopyPart(f.Context(), up, 1, f.id("source"), nil, "00000000000000000000000000000000")
	f.is(err, backends.ErrPrecondition)
	_, err = f.copier.CopyPart(f.Context(), up, 1, f.id("missing"), nil, "")
	f.is(err, backends.ErrNotFound)
	if _, err := f.copier.CopyPart(f.Context(), up, 10001, f.id("source"), nil, ""); err == nil {
		f.Error("part 10001 was taken")
	}
	page, err := f.parts.ListParts(f.Context(), up, 0, 0)
	f.ok(err)
	if len(page.Parts) != 0 {
		f.Errorf("stored all the same: %v", page.Parts)
	}
	f.ok(f.parts.Abort(f.Context(), up))
	_, err = f.copier.CopyPart(f.Context(), up, 1, f.id("source"), nil, "")
	f.is(err, backends.ErrUploadNotFound)
}

func copyCancelled(f *fixture) {
	f.put("source", []byte("x"))
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	_, err := f.copier.Copy(ctx, f.id("source"), f.id("copy"), nil)
	f.is(err, context.Canceled)
	if f.parts != nil {
		up, _ := f.upload("copy")
		_, err = f.copier.CopyPart(ctx, up, 1, f.id("source"), nil, "")
		f.is(err, context.Canceled)
		f.ok(f.parts.Abort(f.Context(), up))
	}
	f.lacks("copy")
}
