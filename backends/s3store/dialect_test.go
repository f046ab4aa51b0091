package s3store

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"chatelaine/backends"
)

func TestDialectIsThatOfTheHost(t *testing.T) {
	for endpoint, want := range map[string][2]string{ // dialect, region
		"":                                       {"aws", ""},
		"https://s3.eu-central-1.amazonaws.com":  {"aws", "eu-central-1"},
		"https://S3.EU-Central-1.amazonaws.com.": {"aws", "eu-central-1"},
		"https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com": {"aws", ""},
		"https://s3.cn-north-1.amazonaws.com.cn":                {"aws-cn", "cn-north-1"},
		"https://s3.eusc-de-east-1.amazonaws.eu":                {"aws-eusc", "eusc-de-east-1"},
		"https://s3.us-iso-east-1.c2s.ic.gov":                   {"aws-iso", "us-iso-east-1"},
		"https://s3.gra.io.cloud.ovh.net":                       {"ovh", "gra"},
		"https://s3.fr-par.scw.cloud":                           {"scaleway", "fr-par"},
		"https://obs.eu-de.otc.t-systems.com":                   {"otc", "eu-de"},
		"https://nbg1.your-objectstorage.com:443":               {"hetzner", "nbg1"},
		"https://s3.eu-central-2.ionoscloud.com":                {"ionos", "eu-central-2"},
		"https://sos-de-fra-1.exo.io":                           {"exoscale", "de-fra-1"},
		"https://0123.r2.cloudflarestorage.com":                 {"r2", "auto"},
		"https://0123.eu.r2.cloudflarestorage.com":              {"r2", "auto"},
		"https://s3.eu-central-003.backblazeb2.com":             {"b2", "eu-central-003"},
		"https://s3.wasabisys.com":                              {"wasabi", "us-east-1"},
		"https://s3.eu-central-2.wasabisys.com":                 {"wasabi", "eu-central-2"},
		"https://storage.googleapis.com":                        {"gcs", "auto"},
		"http://127.0.0.1:9000":                                 {"generic", ""},
		"https://s3.example.org":                                {"generic", ""},
		"https://amazonaws.com.example.org":                     {"generic", ""},
		"https://s3.x.fr-par.scw.cloud":                         {"generic", ""},
		"https://sos-.exo.io":                                   {"generic", ""},
		"https://notamazonaws.com":                              {"generic", ""},
	} {
		d, region, err := DialectOf("", endpoint)
		if err != nil || d.Name != want[0] || region != want[1] && !(want[1] == "" && region == d.Region) {
			t.Errorf("%s: got %s, region %q and %v; want %q", endpoint, d.Name, region, err, want)
		}
	}
}

func TestDialectByNameGoesBeforeTheHost(t *testing.T) {
	d, region, err := DialectOf("generic", "https://s3.fr-par.scw.cloud")
	if err != nil || d.Name != "generic" || region != "" {
		t.Errorf("got %s, %q and %v", d.Name, region, err)
	}
	if _, _, err := DialectOf("klingon", ""); err == nil || !strings.Contains(err.Error(), "minio") {
		t.Errorf("got %v, want an error that lists the dialects", err)
	}
	if _, err := ParseURL("s3://h?dialect=klingon"); err == nil {
		t.Error("an unknown dialect passed in a URL")
	}
	if _, err := New(Config{Dialect: "klingon"}); err == nil {
		t.Error("an unknown dialect passed in a Config")
	}
}

func TestRowsAreWhole(t *testing.T) {
	facts := []Fact{Yes, No, Unknown}
	var names []string
	for _, d := range Dialects() {
		names = append(names, d.Name)
		if d.Addressing == "" || d.MaxParts == 0 || len(d.Sources) == 0 || d.Checksum == "" {
			t.Errorf("%s: something is missing: %+v", d.Name, d)
		}
		for _, f := range []Fact{d.IfNoneMatch, d.IfMatch, d.IfOnComplete, d.IfOnDelete, d.IfOnCopy, d.LeadingSlash, d.PathKeys, d.EqualParts, d.Copies, d.Versions} {
			if !slices.Contains(facts, f) {
				t.Errorf("%s: fact %q", d.Name, string(f))
			}
		}
		if err := (&Config{Checksum: d.Checksum, Endpoint: "https://h", PathStyle: true}).complete(); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
	}
	slices.Sort(names)
	if unique := slices.Compact(slices.Clone(names)); len(unique) != len(names) {
		t.Errorf("names twice: %q", names)
	}
}

func TestConfigGoesBeforeTheDialect(t *testing.T) {
	const ovh = "https://s3.gra.io.cloud.ovh.net"
	row, own := Config{Endpoint: ovh, PathStyle: true}, Config{Endpoint: ovh, PathStyle: true, Region: "x", Checksum: CRC32C, ConditionalPut: true, ConditionalDelete: true}
	for _, c := range []*Config{&row, &own} {
		if err := c.complete(); err != nil {
			t.Fatal(err)
		}
	}
	if row.Region != "gra" || row.Checksum != NoChecksum || row.ConditionalDelete || row.dialect.IfMatch != No {
		t.Errorf("got %+v, want what the row says", row)
	}
	if own.Region != "x" || own.Checksum != CRC32C || !own.ConditionalDelete || own.dialect.IfMatch != Yes || own.dialect.IfOnComplete != Yes {
		t.Errorf("got %+v, want what the Config says", own)
	}
}

// refuse is a server that nobody may ask.
func refuse(t *testing.T) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the server was asked: %s %s", r.Method, r.URL) }
}

func TestConditionsThatADialectDeniesAreRefusedUnasked(t *testing.T) {
	s, _ := rerouted(t, Config{Dialect: "otc", Endpoint: "http://h", PathStyle: true}, refuse(t))
	id, up := backends.ObjectID{Bucket: "bucket", Key: "key"}, backends.UploadID{Bucket: "bucket", Key: "key", ID: "u"}
	for name, c := range map[string]backends.Conditions{"If-Match": {IfMatch: []string{"e"}}, "If-None-Match": {IfNoneMatch: []string{"*"}}} {
		_, err := s.Put(t.Context(), id, backends.Body{}, &backends.PutOptions{Conditions: c})
		if !errors.Is(err, backends.ErrUnsupported) {
			t.Errorf("Put with %s: got %v, want ErrUnsupported", name, err)
		}
		if _, err = s.Complete(t.Context(), up, []backends.Part{{Number: 1, ETag: "e"}}, c); !errors.Is(err, backends.ErrUnsupported) {
			t.Errorf("Complete with %s: got %v, want ErrUnsupported", name, err)
		}
	}
	open, e := rerouted(t, Config{Dialect: "otc", ConditionalPut: true, Endpoint: "http://h", PathStyle: true}, created)
	if _, err := open.Put(t.Context(), id, backends.Body{}, &backends.PutOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"*"}}}); err != nil || e.last().Header.Get("If-None-Match") != "*" {
		t.Errorf("with conditional-put: got %v and %q, want the header to be sent", err, e.last().Header.Get("If-None-Match"))
	}
}

func TestKeysThatAFileSystemChangesAreRefusedUnasked(t *testing.T) {
	s, _ := rerouted(t, Config{Dialect: "versitygw", Endpoint: "http://h", PathStyle: true}, refuse(t))
	for _, key := range []string{"a//b", "a/../b", "./a", "..", "/a", "//", "a//", strings.Repeat("x", 256)} {
		_, err := s.Put(t.Context(), backends.ObjectID{Bucket: "bucket", Key: key}, backends.Body{}, nil)
		if !errors.Is(err, backends.ErrInvalidName) {
			t.Errorf("key %.20q: got %v, want ErrInvalidName", key, err)
		}
	}
	for _, key := range []string{"a", "a/b/", "...", ".a/b.", strings.Repeat("x", 255)} {
		if !isPath(key) {
			t.Errorf("%.20q is refused", key)
		}
	}
}

func TestCapabilitiesThatADialectDeniesAreNotOffered(t *testing.T) {
	for dialect, want := range map[string][2]bool{ // copies, versions
		"aws": {true, true}, "generic": {true, true}, "versitygw": {true, false}, "ceph": {false, false}, "gcs": {false, true},
	} {
		s, err := Open(Config{Dialect: dialect, Endpoint: "http://h", PathStyle: true, AccessKeyID: "i", SecretAccessKey: NewSecret("s")})
		if err != nil {
			t.Fatal(err)
		}
		_, copies := backends.As[backends.Copier](s)
		_, versions := backends.As[backends.Versioner](s)
		_, tags := backends.As[backends.Tagger](s)
		_, locks := backends.As[backends.Locker](s)
		_, rules := backends.As[backends.Lifecycler](s)
		_, parts := backends.As[backends.Multiparter](s)
		_, foreign := backends.As[backends.Foreigner](s)
		if copies != want[0] || versions != want[1] || tags != want[1] || locks != want[1] || rules != want[1] || !parts || !foreign {
			t.Errorf("%s: copies %v, versions %v, tags %v, locks %v, rules %v, parts %v, foreign %v; want %v", dialect, copies, versions, tags, locks, rules, parts, foreign, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(Config{Dialect: "klingon"}); err == nil {
		t.Error("an unknown dialect passed")
	}
}

func TestConditionsOfReadsStayHereWhereTheServersAnswersAreNotEnough(t *testing.T) {
	s, e := rerouted(t, Config{Dialect: "versitygw", Endpoint: "http://h", PathStyle: true}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Content-Length", "0")
	})
	_, err := s.Head(t.Context(), backends.ObjectID{Bucket: "bucket", Key: "key"}, &backends.GetOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"e"}}})
	var not *backends.NotModified
	if !errors.As(err, &not) || not.ETag != "e" || not.Modified.IsZero() || e.last().Header.Get("If-None-Match") != "" {
		t.Errorf("got %v and header %q, want a NotModified made here", err, e.last().Header.Get("If-None-Match"))
	}
}

func TestDeleteOfWhatOthersHaveDeletedSucceeds(t *testing.T) {
	s, _ := rerouted(t, Config{Endpoint: "http://h", PathStyle: true}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte("<Error><Code>NoSuchKey</Code></Error>"))
	})
	if _, err := s.Delete(t.Context(), backends.ObjectID{Bucket: "bucket", Key: "key"}, nil); err != nil {
		t.Errorf("got %v, want success", err)
	}
	own, _ := rerouted(t, Config{Endpoint: "http://h", PathStyle: true, ConditionalDelete: true}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte("<Error><Code>NoSuchKey</Code></Error>"))
	})
	cond := &backends.DeleteOptions{Conditions: backends.Conditions{IfMatch: []string{"e"}}}
	if _, err := own.Delete(t.Context(), backends.ObjectID{Bucket: "bucket", Key: "key"}, cond); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("with If-Match: got %v, want ErrNotFound", err)
	}
}

func TestETagOfPartsIsS3s(t *testing.T) {
	// Of "a" and "b"; computed with Python's hashlib.
	parts := []backends.Part{{Number: 1, ETag: "0cc175b9c0f1b6a831c399e269772661"}, {Number: 2, ETag: "92eb5ffee6ae2fec3ad71c777531578f"}}
	want := "96e024ba2074fe77e8e965ba43a704be-2"
	if got := etagOfParts(parts); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, etag := range []string{"", "xyz", "0cc1"} {
		if got := etagOfParts([]backends.Part{{Number: 1, ETag: etag}}); got != "" {
			t.Errorf("of a part with ETag %q: got %s, want none", etag, got)
		}
	}
}

func TestWhatAnOldCephLeavesOutIsMadeUp(t *testing.T) {
	s, _ := rerouted(t, Config{Dialect: "ceph", Endpoint: "http://h", PathStyle: true}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = w.Write([]byte("<R><Bucket>bucket</Bucket></R>"))
			return
		}
		_, _ = w.Write([]byte("<R><Bucket>bucket</Bucket><Upload><Key>a%20b%2Bc</Key><UploadId>u</UploadId></Upload></R>"))
	})
	up := backends.UploadID{Bucket: "bucket", Key: "key", ID: "u"}
	written, err := s.Complete(t.Context(), up, []backends.Part{{Number: 1, ETag: "0cc175b9c0f1b6a831c399e269772661"}}, backends.Conditions{})
	if err != nil || !strings.HasSuffix(written.ETag, "-1") || len(written.ETag) != 34 {
		t.Errorf("got %+v and %v, want an ETag of one part", written, err)
	}
	page, err := s.ListUploads(t.Context(), "bucket", nil)
	if err != nil || len(page.Uploads) != 1 || page.Uploads[0].Key != "a b+c" {
		t.Errorf("got %+v and %v, want the key decoded", page, err)
	}
}

func TestTagsAndLocksAreRefusedWhereTheDialectHasNone(t *testing.T) {
	s, _ := rerouted(t, Config{Dialect: "versitygw", Endpoint: "http://h", PathStyle: true}, refuse(t))
	id := backends.ObjectID{Bucket: "bucket", Key: "key"}
	for name, write := range map[string]func(a backends.Attributes) error{
		"Put": func(a backends.Attributes) error {
			_, err := s.Put(t.Context(), id, backends.Body{Reader: strings.NewReader("x"), Size: 1}, &backends.PutOptions{Attributes: a})
			return err
		},
		"CreateUpload": func(a backends.Attributes) error {
			_, err := s.CreateUpload(t.Context(), id.Bucket, id.Key, a)
			return err
		},
		"Copy": func(a backends.Attributes) error {
			_, err := s.Copy(t.Context(), id, id, &backends.CopyOptions{Attributes: a})
			return err
		},
	} {
		if err := write(backends.Attributes{Tags: backends.Tags{"a": "b"}}); !errors.Is(err, backends.ErrUnsupported) {
			t.Errorf("%s with tags: got %v, want ErrUnsupported", name, err)
		}
		if err := write(backends.Attributes{Lock: backends.Lock{Hold: true}}); !errors.Is(err, backends.ErrNoLock) {
			t.Errorf("%s with a hold: got %v, want ErrNoLock", name, err)
		}
	}
}

// folders answers writes as versitygw does whose folder goes, as often as said; then it
// takes them. Listings have one key if below says so.
func folders(refusals int, below bool) (http.HandlerFunc, *atomic.Int32) {
	var writes atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch {
		case r.Method == http.MethodGet && below:
			_, _ = io.WriteString(w, "<ListBucketResult><Name>bucket</Name><KeyCount>1</KeyCount><Contents><Key>key/x</Key><Size>1</Size></Contents></ListBucketResult>")
		case r.Method == http.MethodGet:
			_, _ = io.WriteString(w, "<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount></ListBucketResult>")
		case int(writes.Add(1)) <= refusals:
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, "<Error><Code>ExistingObjectIsDirectory</Code></Error>")
		default:
			w.Header().Set("ETag", `"e"`)
		}
	}, &writes
}

func TestAWriteWhoseFolderWentIsSentAgainAndIsNoBadName(t *testing.T) {
	large := make([]byte, smallBody+1)
	for name, c := range map[string]struct {
		dialect  string
		refusals int
		below    bool
		body     []byte
		attempts int32
		want     error
	}{
		"once":                {"versitygw", 1, false, []byte("x"), 2, nil},
		"always":              {"versitygw", 99, false, []byte("x"), attempts, backends.ErrUnavailable},
		"a body that is gone": {"versitygw", 1, false, large, 1, backends.ErrUnavailable},
		"keys below":          {"versitygw", 99, true, []byte("x"), attempts, backends.ErrInvalidName},
		"another server":      {"minio", 99, false, []byte("x"), 1, backends.ErrInvalidName},
	} {
		t.Run(name, func(t *testing.T) {
			handler, writes := folders(c.refusals, c.below)
			s, _ := rerouted(t, Config{Dialect: c.dialect, Endpoint: "http://h", PathStyle: true}, handler)
			_, err := s.Put(t.Context(), backends.ObjectID{Bucket: "bucket", Key: "key"}, backends.Body{Reader: bytes.NewReader(c.body), Size: int64(len(c.body))}, nil)
			if !errors.Is(err, c.want) || writes.Load() != c.attempts {
				t.Errorf("got %v after %d writes, want %v after %d", err, writes.Load(), c.want, c.attempts)
			}
		})
	}
}

func TestACompletionWhoseFolderWentIsUnavailable(t *testing.T) {
	handler, _ := folders(99, false)
	s, _ := rerouted(t, Config{Dialect: "versitygw", Endpoint: "http://h", PathStyle: true}, handler)
	_, err := s.Complete(t.Context(), backends.UploadID{Bucket: "bucket", Key: "key", ID: "id"}, []backends.Part{{Number: 1, ETag: "e"}}, backends.Conditions{})
	if !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}
