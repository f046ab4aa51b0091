package s3store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/s3store"
)

// headers wants those of a request; an empty one must not be there.
func headers(t *testing.T, got http.Header, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := got.Get(name); got != value {
			t.Errorf("got %s %q, want %q", name, got, value)
		}
	}
}

// attributes are all that an object can be given.
func attributes() backends.Attributes {
	return backends.Attributes{
		ContentType: "text/plain",
		Metadata:    map[string]string{"m": "v"},
		Tags:        backends.Tags{"a b": "c+d=e", "f": ""},
		Lock:        backends.Lock{Mode: backends.Compliance, Until: time.Date(2036, 3, 4, 5, 6, 7, 0, time.UTC), Hold: true},
	}
}

func TestAttributesTravelInHeaders(t *testing.T) {
	want := map[string]string{
		"Content-Type": "text/plain", "X-Amz-Meta-M": "v", "X-Amz-Tagging": "a%20b=c%2Bd%3De&f=",
		"X-Amz-Object-Lock-Mode": "COMPLIANCE", "X-Amz-Object-Lock-Retain-Until-Date": "2036-03-04T05:06:07Z", "X-Amz-Object-Lock-Legal-Hold": "ON",
	}
	none := map[string]string{
		"X-Amz-Tagging": "", "X-Amz-Object-Lock-Mode": "", "X-Amz-Object-Lock-Retain-Until-Date": "", "X-Amz-Object-Lock-Legal-Hold": "",
	}
	for name, call := range map[string]func(context.Context, *s3store.Store, backends.Attributes) error{
		"Put": func(ctx context.Context, s *s3store.Store, a backends.Attributes) error {
			_, err := s.Put(ctx, object, text("x"), &backends.PutOptions{Attributes: a})
			return err
		},
		"CreateUpload": func(ctx context.Context, s *s3store.Store, a backends.Attributes) error {
			_, err := s.CreateUpload(ctx, "bucket", "key", a)
			return err
		},
		"Copy": func(ctx context.Context, s *s3store.Store, a backends.Attributes) error {
			_, err := s.Copy(ctx, object, object, &backends.CopyOptions{Attributes: a})
			return err
		},
	} {
		rec := &recorder{script: []http.HandlerFunc{success}}
		s := scripted(t, rec.serve)
		for i, a := range []backends.Attributes{attributes(), {}} {
			if err := call(t.Context(), s, a); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			headers(t, rec.requests[i].Header, []map[string]string{want, none}[i])
		}
	}
}

func TestGetAndHeadTellOfTagsAndLock(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{
			"Content-Length": "0", "X-Amz-Tagging-Count": "2", "X-Amz-Version-Id": "v1", "X-Amz-Object-Lock-Legal-Hold": "ON",
			"X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date": "2036-03-04T05:06:07.000Z",
		} {
			w.Header().Set(name, value)
		}
	})
	want := backends.Lock{Mode: backends.Governance, Until: time.Date(2036, 3, 4, 5, 6, 7, 0, time.UTC), Hold: true}
	info, err := s.Head(t.Context(), object, nil)
	if err != nil || info.TagCount != 2 || info.Version != "v1" || info.Attributes.Lock != want {
		t.Errorf("Head: got %+v and %v, want 2 tags, v1 and %+v", info, err, want)
	}
	obj, err := s.Get(t.Context(), object, nil)
	if err != nil {
		t.Fatal(err)
	}
	obj.Body.Close()
	if obj.TagCount != 2 || obj.Version != "v1" || obj.Attributes.Lock != want {
		t.Errorf("Get: got %+v, want 2 tags, v1 and %+v", obj.Info, want)
	}
}

func TestCopyNamesItsSource(t *testing.T) {
	for _, tt := range []struct {
		src  backends.ObjectID
		want string
	}{
		{backends.ObjectID{Bucket: "source", Key: "a/b"}, "source/a/b"},
		{backends.ObjectID{Bucket: "source", Key: "a b+c%2F?versionId=x#é\n"}, "source/a%20b%2Bc%252F%3FversionId%3Dx%23%C3%A9%0A"},
		{backends.ObjectID{Bucket: "source", Key: "//..//a", Version: "v/1+"}, "source///..//a?versionId=v%2F1%2B"},
	} {
		rec := &recorder{script: []http.HandlerFunc{success}}
		s := scriptedWith(t, s3store.Config{LeadingSlash: true}, rec.serve)
		written, err := s.Copy(t.Context(), tt.src, object, &backends.CopyOptions{SourceIfMatch: "e"})
		if err != nil || written.ETag != "abc" || written.Modified.IsZero() {
			t.Fatalf("got %+v and %v, want abc and a time", written, err)
		}
		if _, err := s.CopyPart(t.Context(), upload(), 7, tt.src, &backends.Range{Offset: 5, Length: 3}, "e"); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"X-Amz-Copy-Source": tt.want, "X-Amz-Copy-Source-If-Match": `"e"`}
		headers(t, rec.requests[1].Header, want)
		headers(t, rec.requests[1].Header, map[string]string{"X-Amz-Copy-Source-Range": "bytes=5-7"})
		want["X-Amz-Metadata-Directive"], want["X-Amz-Tagging-Directive"] = "REPLACE", "REPLACE"
		headers(t, rec.requests[0].Header, want)
	}
}

func TestCopyWithConditionsIsRefusedWhereTheyWouldBeIgnored(t *testing.T) {
	for name, c := range map[string]backends.Conditions{"If-Match": {IfMatch: []string{"e"}}, "If-None-Match": {IfNoneMatch: []string{"*"}}} {
		for _, able := range []bool{false, true} {
			rec := &recorder{script: []http.HandlerFunc{success}}
			s := scriptedWith(t, s3store.Config{ConditionalCopy: able}, rec.serve)
			_, err := s.Copy(t.Context(), object, object, &backends.CopyOptions{Conditions: c})
			if !able && (!errors.Is(err, backends.ErrUnsupported) || rec.count() != 0) {
				t.Errorf("%s: got %v and %d requests, want ErrUnsupported and none", name, err, rec.count())
			}
			if able && (err != nil || rec.requests[0].Header.Get(name) == "") {
				t.Errorf("%s: got %v, want a request with that header", name, err)
			}
		}
	}
}

func TestPartOfAnOpenRangeIsPinnedToWhatWasMeasured(t *testing.T) {
	measured := func(size string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("ETag", `"seen"`)
				w.Header().Set("Content-Length", size)
				return
			}
			success(w, r)
		}
	}
	for _, tt := range []struct {
		size   string
		r      *backends.Range
		header string
		part   int64
		want   error
	}{
		{"10", nil, "", 10, nil},
		{"0", nil, "", 0, nil},
		{"10", &backends.Range{Offset: 4, Length: -1}, "bytes=4-9", 6, nil},
		{"10", &backends.Range{Offset: -3}, "bytes=7-9", 3, nil},
		{"10", &backends.Range{Offset: -11}, "", 0, backends.ErrRange},
		{"10", &backends.Range{Offset: 10, Length: -1}, "", 0, backends.ErrRange},
		{"10", &backends.Range{Offset: 1, Length: 0}, "", 0, backends.ErrRange},
		{"5368709121", nil, "", 0, backends.ErrTooLarge},
	} {
		t.Run(fmt.Sprintf("%v of %s", tt.r, tt.size), func(t *testing.T) {
			rec := &recorder{script: []http.HandlerFunc{measured(tt.size)}}
			part, err := scripted(t, rec.serve).CopyPart(t.Context(), upload(), 2, object, tt.r, "")
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			if part.Size != tt.part || part.Number != 2 || part.ETag != "abc" || rec.count() != 2 {
				t.Errorf("got %+v after %d requests, want %d bytes after 2", part, rec.count(), tt.part)
			}
			headers(t, rec.requests[1].Header, map[string]string{"X-Amz-Copy-Source-If-Match": `"seen"`, "X-Amz-Copy-Source-Range": tt.header})
		})
	}
}

func TestCopyOfMoreThanAPartHoldsIsRefusedUnasked(t *testing.T) {
	s := scripted(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	_, err := s.CopyPart(t.Context(), upload(), 1, object, &backends.Range{Length: s.MaxCopy() + 1}, "")
	if !errors.Is(err, backends.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestVersionsComeInTheOrderOfTheDocument(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		want := map[string]string{"encoding-type": "url", "key-marker": "a/x", "version-id-marker": "v0", "max-keys": "7", "prefix": "", "delimiter": "/"}
		for name, value := range want {
			if got := r.URL.Query().Get(name); got != value {
				t.Errorf("got %s %q, want %q", name, got, value)
			}
		}
		const at = "<LastModified>2026-03-04T05:06:07.000Z</LastModified>"
		_, _ = io.WriteString(w, `<?xml version="1.0"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
			<Name>bucket</Name><Prefix></Prefix><KeyMarker>a/x</KeyMarker><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
			<NextKeyMarker>b+c%2B[minio_cache:v2,return:]</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>
			<DeleteMarker><Key>b+c%2B</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest>`+at+`</DeleteMarker>
			<Version><Key>b+c%2B</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest>`+at+`<ETag>"e"</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass></Version>
			<DeleteMarker><Key>b+c%2B</Key><VersionId>v1</VersionId><IsLatest>false</IsLatest>`+at+`</DeleteMarker>
			<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>b%0A/</Prefix></CommonPrefixes></ListVersionsResult>`)
	})
	page, err := s.ListVersions(t.Context(), "bucket", &backends.ListVersionsOptions{Delimiter: "/", KeyMarker: "a/x", VersionMarker: "v0", Limit: 7})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	want := []backends.VersionInfo{
		{Info: backends.Info{Key: "b c+", Version: "v3", Modified: at}, Latest: true, Marker: true},
		{Info: backends.Info{Key: "b c+", Version: "v2", Modified: at, ETag: "e", Size: 5, Class: "STANDARD"}},
		{Info: backends.Info{Key: "b c+", Version: "v1", Modified: at}, Marker: true},
	}
	if !slices.EqualFunc(page.Versions, want, sameVersion) || !slices.Equal(page.Prefixes, []string{"b\n/"}) {
		t.Errorf("got %+v, want %+v and the prefix b\\n/", page, want)
	}
	if !page.Truncated || page.NextKey != "b c+" || page.NextVersionMark != "v1" {
		t.Errorf("got %v, %q, %q, want the last row as markers", page.Truncated, page.NextKey, page.NextVersionMark)
	}
}

func sameVersion(a, b backends.VersionInfo) bool {
	return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b)
}

func TestPageOfVersionsThatEndsWithAPrefixGoesOnAboveIt(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<R><Name>b</Name><IsTruncated>true</IsTruncated><Version><Key>a</Key><VersionId>v</VersionId></Version>
			<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes></R>`)
	})
	page, err := s.ListVersions(t.Context(), "bucket", nil)
	if err != nil || page.NextKey != "b/" || page.NextVersionMark != "" {
		t.Errorf("got %+v and %v, want the marker b/ without a version", page, err)
	}
}

func TestMalformedVersionsAreUnavailable(t *testing.T) {
	for name, xml := range map[string]string{
		"cut off":         "<R><Name>b</Name><Version><Key>a",
		"bad escape":      "<R><Name>b</Name><EncodingType>url</EncodingType><Version><Key>%zz</Key></Version></R>",
		"truncated, mute": "<R><Name>b</Name><IsTruncated>true</IsTruncated></R>",
		"no number":       "<R><Name>b</Name><Version><Key>a</Key><Size>x</Size></Version></R>",
		"no time":         "<R><Name>b</Name><Version><Key>a</Key><LastModified>x</LastModified></Version></R>",
	} {
		s := scripted(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, xml) })
		if page, err := s.ListVersions(t.Context(), "bucket", nil); !errors.Is(err, backends.ErrUnavailable) || countOfContract(err) != 1 {
			t.Errorf("%s: got %+v and %v, want ErrUnavailable alone", name, page, err)
		}
	}
}

func TestVersionsOfAnEarlierAttemptAreForgotten(t *testing.T) {
	broken := func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n<R><Name>b</Name><Version><Key>old</Key></Version>")
		time.Sleep(20 * time.Millisecond) // for the client to read it before the connection is reset
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	whole := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<R><Name>b</Name><Version><Key>new</Key></Version></R>")
	}
	rec := &recorder{script: []http.HandlerFunc{broken, whole}}
	page, err := scripted(t, rec.serve).ListVersions(t.Context(), "bucket", nil)
	if err != nil || len(page.Versions) != 1 || page.Versions[0].Key != "new" {
		t.Errorf("got %+v and %v, want the key new alone", page, err)
	}
}

func TestLockIsPutTogetherFromItsHalves(t *testing.T) {
	none := failure(http.StatusNotFound, "NoSuchObjectLockConfiguration", nil)
	retention := answer(`<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2036-03-04T05:06:07.000Z</RetainUntilDate></Retention>`)
	until := time.Date(2036, 3, 4, 5, 6, 7, 0, time.UTC)
	for name, tt := range map[string]struct {
		retention, hold http.HandlerFunc
		want            backends.Lock
		err             error
	}{
		"both":          {retention, answer("<LegalHold><Status>ON</Status></LegalHold>"), backends.Lock{Mode: backends.Governance, Until: until, Hold: true}, nil},
		"retention":     {retention, none, backends.Lock{Mode: backends.Governance, Until: until}, nil},
		"hold":          {none, answer("<LegalHold><Status>ON</Status></LegalHold>"), backends.Lock{Hold: true}, nil},
		"neither":       {none, answer("<LegalHold><Status>OFF</Status></LegalHold>"), backends.Lock{}, nil},
		"half denied":   {retention, failure(403, "AccessDenied", nil), backends.Lock{}, backends.ErrDenied},
		"half nonsense": {retention, answer("<html></html>"), backends.Lock{}, backends.ErrUnavailable},
	} {
		rec := &recorder{script: []http.HandlerFunc{tt.retention, tt.hold}}
		got, err := scripted(t, rec.serve).Lock(t.Context(), object)
		if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) || got.Mode != tt.want.Mode || !got.Until.Equal(tt.want.Until) || got.Hold != tt.want.Hold {
			t.Errorf("%s: got %+v and %v, want %+v and %v", name, got, err, tt.want, tt.err)
		}
	}
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

func TestConfigurationsAreSentWithAChecksum(t *testing.T) {
	rec := &recorder{script: []http.HandlerFunc{success}}
	s := scripted(t, rec.serve)
	for _, tt := range []struct{ call, body string }{
		{"SetVersioning", "<Status>Enabled</Status>"},
		{"SetTags", "<Tag><Key>a</Key><Value>b</Value></Tag>"},
		{"SetLockConfig", "<ObjectLockEnabled>Enabled</ObjectLockEnabled>"},
		{"SetRetention", "<Mode>GOVERNANCE</Mode><RetainUntilDate>2033-05-18T03:33:20Z</RetainUntilDate>"},
		{"SetHold", "<Status>ON</Status>"},
	} {
		if err := calls(s)[tt.call](t.Context()); err != nil {
			t.Errorf("%s: %v", tt.call, err)
			continue
		}
		last := rec.count() - 1
		if h := rec.requests[last].Header; h.Get("X-Amz-Checksum-Crc32") == "" {
			t.Errorf("%s: got %v, want a checksum", tt.call, slices.Sorted(maps.Keys(h)))
		}
		if got := string(rec.bodies[last]); !strings.Contains(got, tt.body) {
			t.Errorf("%s: got %s, want %s in it", tt.call, got, tt.body)
		}
	}
}

func TestOnlyBypassAsksToLiftGovernance(t *testing.T) {
	const header = "X-Amz-Bypass-Governance-Retention"
	for bypass, want := range map[bool]string{true: "true", false: ""} {
		rec := &recorder{script: []http.HandlerFunc{success}}
		s := scripted(t, rec.serve)
		_, err := s.Delete(t.Context(), object, &backends.DeleteOptions{BypassGovernance: bypass})
		err = errors.Join(err, s.SetRetention(t.Context(), object, "", time.Time{}, bypass))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rec.requests {
			if got := r.Header.Get(header); got != want {
				t.Errorf("%s: got %q, want %q", r.Method, got, want)
			}
		}
		if got := string(rec.bodies[1]); !strings.Contains(got, "<Retention") || strings.Contains(got, "<Mode>") {
			t.Errorf("got the body %s, want an empty retention", got)
		}
	}
}

func TestDefaultRetentionTravelsBothWays(t *testing.T) {
	for _, want := range []backends.LockConfig{
		{Enabled: true},
		{Enabled: true, Mode: backends.Governance, Days: 3},
		{Enabled: true, Mode: backends.Compliance, Years: 2},
	} {
		rec := &recorder{}
		rec.script = []http.HandlerFunc{success, success, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(rec.bodies[1]) }}
		s := scripted(t, rec.serve)
		if err := s.SetLockConfig(t.Context(), "bucket", want); err != nil {
			t.Fatal(err)
		}
		if got, err := s.LockConfig(t.Context(), "bucket"); err != nil || got != want {
			t.Errorf("got %+v and %v, want %+v", got, err, want)
		}
	}
}

func TestWhatNoStoreCanDoIsRefusedUnasked(t *testing.T) {
	s := scripted(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	until := time.Now().Add(time.Hour)
	many := backends.Tags{}
	for i := range backends.MaxTags + 1 {
		many[fmt.Sprint(i)] = ""
	}
	_, tooMany := s.SetTags(t.Context(), object, many)
	for name, tt := range map[string]struct{ got, want error }{
		"versioning off":       {s.SetVersioning(t.Context(), "bucket", backends.VersioningOff), backends.ErrBucketState},
		"lock off":             {s.SetLockConfig(t.Context(), "bucket", backends.LockConfig{}), backends.ErrBucketState},
		"days and years":       {s.SetLockConfig(t.Context(), "bucket", backends.LockConfig{Enabled: true, Mode: backends.Governance, Days: 1, Years: 1}), backends.ErrInvalidName},
		"time without a mode":  {s.SetRetention(t.Context(), object, "", until, false), backends.ErrInvalidName},
		"mode without a time":  {s.SetRetention(t.Context(), object, backends.Governance, time.Time{}, false), backends.ErrInvalidName},
		"more tags than there": {tooMany, backends.ErrTooLarge},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, tt.got, tt.want)
		}
	}
}

func TestDeleteOfAVersionThatCannotBeSucceeds(t *testing.T) {
	s := scripted(t, failure(http.StatusBadRequest, "NoSuchVersion", nil))
	id := backends.ObjectID{Bucket: "bucket", Key: "key", Version: "nonsense"}
	if got, err := s.Delete(t.Context(), id, nil); err != nil || got.Marker {
		t.Errorf("got %+v and %v, want success", got, err)
	}
}
