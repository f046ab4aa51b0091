package s3store

import (
	"encoding/xml"
	"net/url"
	"strings"
	"testing"

	"chatelaine/backends"
)

func FuzzPageOfAnyVersionsDocument(f *testing.F) {
	f.Add(`<R><Name>b</Name><IsTruncated>true</IsTruncated><Version><Key>a</Key><VersionId>v</VersionId></Version></R>`, "")
	f.Add(`<R><Name>b</Name><EncodingType>url</EncodingType><DeleteMarker><Key>%41+</Key></DeleteMarker><CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes></R>`, "b/")
	f.Add(`<R><Name>b</Name><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker></R>`, "")
	f.Fuzz(func(t *testing.T, document, after string) {
		var d versionsDocument
		if xml.Unmarshal([]byte(document), &d) != nil {
			return
		}
		page, err := d.page(after)
		if err != nil {
			return
		}
		if page.Truncated && page.NextKey == "" {
			t.Errorf("got %+v, which has no next page", page)
		}
		for _, p := range page.Prefixes {
			if p <= after {
				t.Errorf("got the prefix %q, want those above %q", p, after)
			}
		}
		for _, v := range page.Versions {
			if v.Marker && (v.Size != 0 || v.ETag != "") {
				t.Errorf("got the marker %+v, want one without size and ETag", v)
			}
		}
	})
}

func FuzzCopySourceIsOneKeyHoweverItIsDecoded(f *testing.F) {
	f.Add("a b+c%2F?versionId=x#", "v")
	f.Add("//../\x00é", "")
	f.Fuzz(func(t *testing.T, key, version string) {
		source, query, _ := strings.Cut(*copySource(backends.ObjectID{Bucket: "bucket", Key: key, Version: version}), "?")
		asPath, err := url.PathUnescape(source)
		asQuery, err2 := url.QueryUnescape(source)
		if err != nil || err2 != nil || asPath != "bucket/"+key || asQuery != asPath {
			t.Errorf("%q: got %q, which is %q (%v) as a path and %q (%v) as a query", key, source, asPath, err, asQuery, err2)
		}
		if values, err := url.ParseQuery(query); err != nil || values.Get("versionId") != version {
			t.Errorf("version %q: got %q", version, query)
		}
	})
}
