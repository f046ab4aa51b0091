package s3store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/s3store"
)

// scripted is a store that speaks to handler.
func scripted(t *testing.T, handler http.HandlerFunc) *s3store.Store {
	t.Helper()
	return scriptedWith(t, s3store.Config{}, handler)
}

func scriptedWith(t *testing.T, cfg s3store.Config, handler http.HandlerFunc) *s3store.Store {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	cfg.Endpoint, cfg.PathStyle = server.URL, true
	cfg.AccessKeyID, cfg.SecretAccessKey = "id", s3store.NewSecret("secret")
	return open(t, cfg)
}

// failure answers everything with one error.
func failure(status int, code string, header http.Header) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		if r.Method != http.MethodHead && code != "" && status != http.StatusNotModified {
			fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>m</Message></Error>`, code)
		}
	}
}

var object = backends.ObjectID{Bucket: "bucket", Key: "key"}

func upload() backends.UploadID { return backends.UploadID{Bucket: "bucket", Key: "key", ID: "upload"} }

func text(s string) backends.Body {
	return backends.Body{Reader: strings.NewReader(s), Size: int64(len(s))}
}

// calls are the operations of a store, each in its simplest form.
func calls(s *s3store.Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Put":  func(ctx context.Context) error { _, err := s.Put(ctx, object, text("x"), nil); return err },
		"Get":  func(ctx context.Context) error { return get(ctx, s, nil) },
		"Head": func(ctx context.Context) error { _, err := s.Head(ctx, object, nil); return err },
		"Delete": func(ctx context.Context) error {
			_, err := s.Delete(ctx, object, nil)
			return err
		},
		"List":         func(ctx context.Context) error { _, err := s.List(ctx, "bucket", nil); return err },
		"CreateBucket": func(ctx context.Context) error { return s.CreateBucket(ctx, "bucket") },
		"HeadBucket":   func(ctx context.Context) error { return s.HeadBucket(ctx, "bucket") },
		"DeleteBucket": func(ctx context.Context) error { return s.DeleteBucket(ctx, "bucket") },
		"ListBuckets":  func(ctx context.Context) error { _, err := s.ListBuckets(ctx); return err },
		"CreateUpload": func(ctx context.Context) error {
			_, err := s.CreateUpload(ctx, "bucket", "key", backends.Attributes{})
			return err
		},
		"PutPart": func(ctx context.Context) error { _, err := s.PutPart(ctx, upload(), 1, text("x")); return err },
		"Complete": func(ctx context.Context) error {
			_, err := s.Complete(ctx, upload(), []backends.Part{{Number: 1, ETag: "e"}}, backends.Conditions{})
			return err
		},
		"Abort":       func(ctx context.Context) error { return s.Abort(ctx, upload()) },
		"ListParts":   func(ctx context.Context) error { _, err := s.ListParts(ctx, upload(), 0, 0); return err },
		"ListUploads": func(ctx context.Context) error { _, err := s.ListUploads(ctx, "bucket", nil); return err },
		"Copy": func(ctx context.Context) error {
			_, err := s.Copy(ctx, object, backends.ObjectID{Bucket: "bucket", Key: "copy"}, nil)
			return err
		},
		"CopyPart": func(ctx context.Context) error {
			_, err := s.CopyPart(ctx, upload(), 1, object, &backends.Range{Length: 3}, "")
			return err
		},
		"Versioning":    func(ctx context.Context) error { _, err := s.Versioning(ctx, "bucket"); return err },
		"SetVersioning": func(ctx context.Context) error { return s.SetVersioning(ctx, "bucket", backends.VersioningEnabled) },
		"ListVersions":  func(ctx context.Context) error { _, err := s.ListVersions(ctx, "bucket", nil); return err },
		"Tags":          func(ctx context.Context) error { _, _, err := s.Tags(ctx, object); return err },
		"SetTags":       func(ctx context.Context) error { _, err := s.SetTags(ctx, object, backends.Tags{"a": "b"}); return err },
		"no tags":       func(ctx context.Context) error { _, err := s.SetTags(ctx, object, nil); return err },
		"CreateLockedBucket": func(ctx context.Context) error {
			return s.CreateLockedBucket(ctx, "bucket")
		},
		"LockConfig": func(ctx context.Context) error { _, err := s.LockConfig(ctx, "bucket"); return err },
		"SetLockConfig": func(ctx context.Context) error {
			return s.SetLockConfig(ctx, "bucket", backends.LockConfig{Enabled: true})
		},
		"Lock": func(ctx context.Context) error { _, err := s.Lock(ctx, object); return err },
		"SetRetention": func(ctx context.Context) error {
			return s.SetRetention(ctx, object, backends.Governance, time.Unix(2e9, 0), false)
		},
		"SetHold": func(ctx context.Context) error { return s.SetHold(ctx, object, true) },
	}
}

func get(ctx context.Context, s backends.Store, opts *backends.GetOptions) error {
	obj, err := s.Get(ctx, object, opts)
	if err != nil {
		return err
	}
	defer obj.Body.Close()
	_, err = io.Copy(io.Discard, obj.Body)
	return err
}

func TestShortAnswersAreNeverTakenForWholeOnes(t *testing.T) {
	for name, answer := range map[string]string{
		"cut off":          "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
		"no length":        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
		"chunked":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"false range":      "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-9/10\r\n\r\nhello",
		"malformed range":  "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/*\r\n\r\nhello",
		"range at the end": "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 6-10/10\r\n\r\nhello",
		"not HTTP":         "hello\r\n\r\n",
		"nothing":          "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := scripted(t, raw(answer))
			err := get(t.Context(), s, nil)
			if !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
	}
}

// raw answers with these bytes and hangs up.
func raw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(c, answer)
		c.Close()
	}
}

// answerLimit is that of TestMalformedListingIsUnavailable.
const answerLimit = 64 << 10

func TestMalformedListingIsUnavailable(t *testing.T) {
	for name, xml := range map[string]string{
		"not XML":         "hello",
		"empty":           "",
		"HTML":            "<html><body>Welcome to the proxy</body></html>",
		"cut off":         "<ListBucketResult><Contents><Key>a",
		"bad escape":      "<ListBucketResult><Name>b</Name><EncodingType>url</EncodingType><Contents><Key>%zz</Key></Contents></ListBucketResult>",
		"truncated, mute": "<ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated></ListBucketResult>",
		"endless":         "<ListBucketResult>" + strings.Repeat(" ", answerLimit) + "</ListBucketResult>",
	} {
		t.Run(name, func(t *testing.T) {
			var cfg s3store.Config
			cfg.LimitAnswers(answerLimit)
			s := scriptedWith(t, cfg, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, xml) })
			if page, err := s.List(t.Context(), "bucket", nil); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("List: got %+v and %v, want ErrUnavailable", page, err)
			}
			if name == "bad escape" || name == "truncated, mute" {
				return
			}
			for _, call := range []string{"ListBuckets", "ListParts", "ListUploads", "CreateUpload", "ListVersions", "Tags", "LockConfig", "Lock", "Copy", "CopyPart"} {
				if err := calls(s)[call](t.Context()); !errors.Is(err, backends.ErrUnavailable) {
					t.Errorf("%s: got %v, want ErrUnavailable", call, err)
				}
			}
		})
	}
}

func TestAListingThatIsTooLongToBeScannedHasTheLimitToo(t *testing.T) {
	const limit = s3store.MaxScan + answerLimit
	for length, want := range map[int]error{answerLimit: nil, limit: backends.ErrUnavailable} {
		var cfg s3store.Config
		cfg.LimitAnswers(limit)
		xml := "<ListBucketResult><Name>bucket</Name>" + strings.Repeat(" ", length) + "</ListBucketResult>"
		s := scriptedWith(t, cfg, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, xml) })
		if page, err := s.List(t.Context(), "bucket", nil); !errors.Is(err, want) {
			t.Errorf("%d bytes: got %+v and %v, want %v", length, page, err, want)
		}
	}
}

func TestNoAnswerIsReadBeyond16MiB(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound) // successes of a Get are handed out
		_, _ = io.Copy(w, &zeros{left: 20 << 20})
	})
	for name, client := range s.HTTPClients() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Endpoint(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != 16<<20 || err != nil {
			t.Errorf("%s: got %d bytes and %v, want 16 MiB", name, n, err)
		}
		resp.Body.Close()
	}
}

func TestListingDecodesNamesAndSkipsThePrefixThatAfterIsIn(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("encoding-type"); got != "url" {
			t.Errorf("got encoding-type %q, want url", got)
		}
		_, _ = io.WriteString(w, `<ListBucketResult><Name>bucket</Name><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
			<NextContinuationToken>next</NextContinuationToken>
			<Contents><Key>b+c%2Bd%20e</Key><Size>7</Size><ETag>"x"</ETag></Contents>
			<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>c%0A/</Prefix></CommonPrefixes>
			</ListBucketResult>`)
	})
	page, err := s.List(t.Context(), "bucket", &backends.ListOptions{Delimiter: "/", After: "a/x"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := page.Entries[0], (backends.Info{Key: "b c+d e", Size: 7, ETag: "x"}); got.Key != want.Key || got.Size != want.Size || got.ETag != want.ETag {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := page.Prefixes, []string{"c\n/"}; !slices.Equal(got, want) || !page.Truncated || page.Token != "next" {
		t.Errorf("got %+v, want the prefixes %q and the token next", page, want)
	}
}

// recorder keeps what was asked and answers with the results of script in turn,
// and with the last of them from then on.
type recorder struct {
	mu       sync.Mutex
	requests []*http.Request
	bodies   [][]byte
	script   []http.HandlerFunc
}

func (r *recorder) serve(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	n := len(r.requests)
	r.requests, r.bodies = append(r.requests, req), append(r.bodies, body)
	answer := r.script[min(n, len(r.script)-1)]
	r.mu.Unlock()
	answer(w, req)
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

func success(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"abc"`)
	if r.Method == http.MethodPost {
		_, _ = io.WriteString(w, `<R><UploadId>u</UploadId><ETag>"abc"</ETag></R>`)
		return
	}
	if r.Header.Get("X-Amz-Copy-Source") != "" {
		_, _ = io.WriteString(w, `<R><ETag>"abc"</ETag><LastModified>2026-03-04T05:06:07.000Z</LastModified></R>`)
		return
	}
	const answer = "<R><Name>bucket</Name><Bucket>bucket</Bucket><UploadId>u</UploadId><Buckets></Buckets>" +
		"<TagSet></TagSet><ObjectLockEnabled>Enabled</ObjectLockEnabled><Mode>GOVERNANCE</Mode><Status>OFF</Status></R>"
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", "5")
	}
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, answer)
	}
}

func TestKeysAreSentAsTheyAre(t *testing.T) {
	for key, want := range map[string]string{
		"/a": "/bucket//a", "//": "/bucket///", "a//b": "/bucket/a//b", "a/../b": "/bucket/a/../b", "..": "/bucket/..", "./a": "/bucket/./a",
		"a%2Fb": "/bucket/a%252Fb", "a b+c": "/bucket/a%20b%2Bc", "a/": "/bucket/a/", "é\n?#": "/bucket/%C3%A9%0A%3F%23",
	} {
		s := scriptedWith(t, s3store.Config{LeadingSlash: true}, func(_ http.ResponseWriter, r *http.Request) {
			if got, _, _ := strings.Cut(r.RequestURI, "?"); got != want {
				t.Errorf("key %q: got path %q, want %q", key, got, want)
			}
		})
		if _, err := s.Put(t.Context(), backends.ObjectID{Bucket: "bucket", Key: key}, text("x"), nil); err != nil {
			t.Error(err)
		}
	}
}

func TestEveryCallIsOneRequest(t *testing.T) {
	for _, size := range []int{1, 1 << 20} {
		rec := &recorder{script: []http.HandlerFunc{success}}
		s := scripted(t, rec.serve)
		all := calls(s)
		all["Put"] = func(ctx context.Context) error { return put(ctx, s, size, nil) }
		delete(all, "DeleteBucket") // it has to look first
		for _, name := range []string{"SetVersioning", "SetLockConfig"} {
			delete(all, name) // they look first, but on AWS
		}
		delete(all, "Lock") // it has two halves
		for name, call := range all {
			before := rec.count()
			if err := call(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := rec.count() - before; got != 1 {
				t.Errorf("%s: got %d requests, want 1", name, got)
			}
		}
	}
}

func put(ctx context.Context, s backends.Store, size int, opts *backends.PutOptions) error {
	_, err := s.Put(ctx, object, backends.Body{Reader: &zeros{left: size}, Size: int64(size)}, opts)
	return err
}

func TestOnlyWhatMayBeRepeatedIsRepeated(t *testing.T) {
	conditional := &backends.PutOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"*"}}}
	for name, tt := range map[string]struct {
		call func(context.Context, *s3store.Store) error
		want int
	}{
		"Get":         {func(ctx context.Context, s *s3store.Store) error { return calls(s)["Get"](ctx) }, 3},
		"Head":        {func(ctx context.Context, s *s3store.Store) error { return calls(s)["Head"](ctx) }, 3},
		"List":        {func(ctx context.Context, s *s3store.Store) error { return calls(s)["List"](ctx) }, 3},
		"Delete":      {func(ctx context.Context, s *s3store.Store) error { return calls(s)["Delete"](ctx) }, 3},
		"small Put":   {func(ctx context.Context, s *s3store.Store) error { return put(ctx, s, 64<<10, nil) }, 3},
		"large Put":   {func(ctx context.Context, s *s3store.Store) error { return put(ctx, s, 64<<10+1, nil) }, 1},
		"conditional": {func(ctx context.Context, s *s3store.Store) error { return put(ctx, s, 1, conditional) }, 1},
		"conditional Delete": {func(ctx context.Context, s *s3store.Store) error {
			_, err := s.Delete(ctx, object, &backends.DeleteOptions{Conditions: backends.Conditions{IfMatch: []string{"e"}}})
			return err
		}, 1},
		"Complete":     {func(ctx context.Context, s *s3store.Store) error { return calls(s)["Complete"](ctx) }, 1},
		"CreateUpload": {func(ctx context.Context, s *s3store.Store) error { return calls(s)["CreateUpload"](ctx) }, 1},
		"CreateBucket": {func(ctx context.Context, s *s3store.Store) error { return calls(s)["CreateBucket"](ctx) }, 1},
		"Abort":        {func(ctx context.Context, s *s3store.Store) error { return calls(s)["Abort"](ctx) }, 1},
		"Copy":         {func(ctx context.Context, s *s3store.Store) error { return calls(s)["Copy"](ctx) }, 3},
		"CopyPart":     {func(ctx context.Context, s *s3store.Store) error { return calls(s)["CopyPart"](ctx) }, 3},
		"ListVersions": {func(ctx context.Context, s *s3store.Store) error { return calls(s)["ListVersions"](ctx) }, 3},
		"SetRetention": {func(ctx context.Context, s *s3store.Store) error { return calls(s)["SetRetention"](ctx) }, 3},
		"Copy to itself": {func(ctx context.Context, s *s3store.Store) error {
			_, err := s.Copy(ctx, object, object, nil)
			return err
		}, 1},
		"conditional Copy": {func(ctx context.Context, s *s3store.Store) error {
			_, err := s.Copy(ctx, object, backends.ObjectID{Bucket: "bucket", Key: "copy"}, &backends.CopyOptions{Conditions: conditional.Conditions})
			return err
		}, 1},
		"CreateLockedBucket": {func(ctx context.Context, s *s3store.Store) error { return calls(s)["CreateLockedBucket"](ctx) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := &recorder{script: []http.HandlerFunc{failure(503, "SlowDown", nil)}}
			s := scriptedWith(t, s3store.Config{ConditionalDelete: true, ConditionalCopy: true}, rec.serve)
			if err := tt.call(t.Context(), s); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
			if got := rec.count(); got != tt.want {
				t.Errorf("got %d requests, want %d", got, tt.want)
			}
		})
	}
}

func TestSmallBodyIsSentAgainWhole(t *testing.T) {
	rec := &recorder{script: []http.HandlerFunc{failure(500, "InternalError", nil), success}}
	s := scripted(t, rec.serve)
	if _, err := s.Put(t.Context(), object, text("hello"), nil); err != nil {
		t.Fatal(err)
	}
	for i, got := range rec.bodies {
		if string(got) != "hello" {
			t.Errorf("request %d: got the body %q, want hello", i, got)
		}
	}
	if len(rec.bodies) != 2 {
		t.Errorf("got %d requests, want 2", len(rec.bodies))
	}
}

func TestHeadersOfABody(t *testing.T) {
	for _, tt := range []struct {
		size     int
		checksum s3store.Checksum
		want     map[string]string
	}{
		{9, "", map[string]string{"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD", "X-Amz-Checksum-Crc64nvme": "rosUhgp5mIg=", "Content-Encoding": ""}},
		{5, s3store.NoChecksum, map[string]string{"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD", "X-Amz-Checksum-Crc64nvme": "", "X-Amz-Trailer": ""}},
		{1 << 20, "", map[string]string{
			"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "Content-Encoding": "aws-chunked",
			"X-Amz-Trailer": "x-amz-checksum-crc64nvme", "X-Amz-Decoded-Content-Length": "1048576", "Expect": "100-continue",
		}},
		{1 << 17, s3store.CRC32C, map[string]string{"X-Amz-Trailer": "x-amz-checksum-crc32c", "Expect": ""}},
		{1 << 17, s3store.NoChecksum, map[string]string{"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD", "Content-Encoding": "", "X-Amz-Trailer": ""}},
	} {
		rec := &recorder{script: []http.HandlerFunc{success}}
		s := scriptedWith(t, s3store.Config{Checksum: tt.checksum}, rec.serve)
		body := backends.Body{Reader: strings.NewReader(strings.Repeat("123456789", tt.size/9+1)[:tt.size]), Size: int64(tt.size)}
		opts := &backends.PutOptions{Attributes: backends.Attributes{ContentType: "a/b", Metadata: map[string]string{"cho1": "v"}}}
		if _, err := s.Put(t.Context(), object, body, opts); err != nil {
			t.Fatal(err)
		}
		got := rec.requests[0]
		tt.want["Content-Type"], tt.want["X-Amz-Meta-Cho1"], tt.want["Accept-Encoding"] = "a/b", "v", "identity"
		for name, want := range tt.want {
			if got := got.Header.Get(name); got != want {
				t.Errorf("%d bytes, checksum %q: got %s %q, want %q", tt.size, tt.checksum, name, got, want)
			}
		}
		if got.ContentLength != int64(len(rec.bodies[0])) || len(got.TransferEncoding) != 0 {
			t.Errorf("%d bytes: got length %d, encoding %v", tt.size, got.ContentLength, got.TransferEncoding)
		}
	}
}

func TestConditionsAreHeaders(t *testing.T) {
	when := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	rec := &recorder{script: []http.HandlerFunc{success}}
	s := scriptedWith(t, s3store.Config{ConditionalDelete: true}, rec.serve)
	match := backends.Conditions{IfMatch: []string{"e"}}
	read := &backends.GetOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"n"}, IfModifiedSince: when}}
	for name, tt := range map[string]struct {
		call func(context.Context) error
		want map[string]string
	}{
		"Put": {
			func(ctx context.Context) error { return put(ctx, s, 1, &backends.PutOptions{Conditions: match}) },
			map[string]string{"If-Match": `"e"`, "If-None-Match": ""},
		},
		"Put of what is new": {
			func(ctx context.Context) error {
				return put(ctx, s, 1, &backends.PutOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"*"}}})
			},
			map[string]string{"If-Match": "", "If-None-Match": "*"},
		},
		"Complete": {
			func(ctx context.Context) error {
				_, err := s.Complete(ctx, upload(), []backends.Part{{Number: 1, ETag: "e"}}, match)
				return err
			},
			map[string]string{"If-Match": `"e"`},
		},
		"Delete": {
			func(ctx context.Context) error {
				_, err := s.Delete(ctx, object, &backends.DeleteOptions{Conditions: match})
				return err
			},
			map[string]string{"If-Match": `"e"`},
		},
		"Get": {
			func(ctx context.Context) error { return get(ctx, s, read) },
			map[string]string{"If-None-Match": `"n"`, "If-Modified-Since": ""},
		},
		"Head": {
			func(ctx context.Context) error { _, err := s.Head(ctx, object, read); return err },
			map[string]string{"If-None-Match": `"n"`, "If-Modified-Since": ""},
		},
		"Get of what is newer": {
			func(ctx context.Context) error {
				return get(ctx, s, &backends.GetOptions{Conditions: backends.Conditions{IfModifiedSince: when}})
			},
			map[string]string{"If-Modified-Since": when.Format(http.TimeFormat)},
		},
		"Get of what is as old": {
			func(ctx context.Context) error {
				return get(ctx, s, &backends.GetOptions{Conditions: backends.Conditions{IfUnmodifiedSince: when}})
			},
			map[string]string{"If-Unmodified-Since": when.Format(http.TimeFormat)},
		},
	} {
		before := rec.count()
		if err := tt.call(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for header, want := range tt.want {
			if got := rec.requests[before].Header.Get(header); got != want {
				t.Errorf("%s: got %s %q, want %q", name, header, got, want)
			}
		}
	}
}

func TestConditionsThatServersDisagreeOnAreCheckedOnTheAnswer(t *testing.T) {
	rec := &recorder{script: []http.HandlerFunc{success}} // it has the ETag abc
	s := scripted(t, rec.serve)
	for _, tt := range []struct {
		cond backends.Conditions
		want error
	}{
		{backends.Conditions{IfMatch: []string{"x", "abc"}}, nil},
		{backends.Conditions{IfMatch: []string{"x", "y"}}, backends.ErrPrecondition},
		{backends.Conditions{IfNoneMatch: []string{"x", "abc"}}, backends.ErrNotModified},
		{backends.Conditions{IfNoneMatch: []string{"x", "y"}}, nil},
		{backends.Conditions{IfMatch: []string{"x"}, IfNoneMatch: []string{"abc"}}, backends.ErrPrecondition},
		{backends.Conditions{IfMatch: []string{"abc"}, IfNoneMatch: []string{"abc"}}, backends.ErrNotModified},
	} {
		opts := &backends.GetOptions{Conditions: tt.cond}
		_, headErr := s.Head(t.Context(), object, opts)
		for name, err := range map[string]error{"Get": get(t.Context(), s, opts), "Head": headErr} {
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("%s with %+v: got %v, want %v", name, tt.cond, err, tt.want)
			}
		}
	}
	for _, r := range rec.requests {
		if r.Header.Get("If-Match")+r.Header.Get("If-None-Match") != "" {
			t.Errorf("got the headers %v, want no condition", r.Header)
		}
	}
}

func TestConditionsThatCannotBeHadMakeNoRequest(t *testing.T) {
	s := scripted(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	two := backends.Conditions{IfMatch: []string{"a", "b"}}
	since := backends.Conditions{IfUnmodifiedSince: time.Now()}
	_, completeErr := s.Complete(t.Context(), upload(), []backends.Part{{Number: 1}}, two)
	_, deleteErr := s.Delete(t.Context(), object, &backends.DeleteOptions{Conditions: backends.Conditions{IfMatch: []string{"a"}}})
	for name, err := range map[string]error{
		"Put with two ETags":                              put(t.Context(), s, 1, &backends.PutOptions{Conditions: two}),
		"Put with a time":                                 put(t.Context(), s, 1, &backends.PutOptions{Conditions: since}),
		"Complete with two ETags":                         completeErr,
		"Delete where it is not told that the server can": deleteErr,
	} {
		if !errors.Is(err, backends.ErrUnsupported) {
			t.Errorf("%s: got %v, want ErrUnsupported", name, err)
		}
	}
}

func TestNamesThatNoServerMaySee(t *testing.T) {
	s := scripted(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a request was made for %s", r.URL) })
	for _, id := range []backends.ObjectID{
		{Bucket: "bucket"},
		{Key: "key"},
		{Bucket: "../x", Key: "key"},
		{Bucket: "a/b", Key: "key"},
		{Bucket: "arn:aws:s3:eu-west-1:1:accesspoint/x", Key: "key"},
		{Bucket: "bucket", Key: "/key"},
		{Bucket: "bucket", Key: strings.Repeat("k", 1025)},
		{Bucket: "bucket", Key: "\xff"},
	} {
		_, err := s.Put(t.Context(), id, text("x"), nil)
		if !errors.Is(err, backends.ErrInvalidName) {
			t.Errorf("Put of %.40q in %q: got %v, want ErrInvalidName", id.Key, id.Bucket, err)
		}
	}
	if _, err := s.Put(t.Context(), object, backends.Body{Size: 5<<30 + 1}, nil); !errors.Is(err, backends.ErrTooLarge) {
		t.Errorf("Put of more than 5 GiB: got %v, want ErrTooLarge", err)
	}
}

func TestRangesAndExtents(t *testing.T) {
	for _, tt := range []struct {
		rng            backends.Range
		header, answer string
		want           backends.Range
		size           int64
	}{
		{backends.Range{Offset: 2, Length: 3}, "bytes=2-4", "bytes 2-4/10", backends.Range{Offset: 2, Length: 3}, 10},
		{backends.Range{Offset: 2, Length: -1}, "bytes=2-", "bytes 2-9/10", backends.Range{Offset: 2, Length: 8}, 10},
		{backends.Range{Offset: -4}, "bytes=-4", "bytes 6-9/10", backends.Range{Offset: 6, Length: 4}, 10},
		{backends.Range{Offset: 1, Length: 1<<63 - 1}, "bytes=1-", "bytes 1-9/10", backends.Range{Offset: 1, Length: 9}, 10},
		{backends.Range{Offset: 0, Length: 3}, "bytes=0-2", "", backends.Range{Offset: 0, Length: 10}, 10},
	} {
		s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Range"); got != tt.header {
				t.Errorf("%+v: got header %q, want %q", tt.rng, got, tt.header)
			}
			if tt.answer != "" {
				w.Header().Set("Content-Range", tt.answer)
			}
			_, _ = w.Write(make([]byte, tt.want.Length))
		})
		obj, err := s.Get(t.Context(), object, &backends.GetOptions{Range: &tt.rng})
		if err != nil {
			t.Fatal(err)
		}
		obj.Body.Close()
		if obj.Range != tt.want || obj.Size != tt.size {
			t.Errorf("%+v: got %+v of %d, want %+v of %d", tt.rng, obj.Range, obj.Size, tt.want, tt.size)
		}
	}
}

func TestRangeOfNothingIsARangeError(t *testing.T) {
	s := scripted(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	if err := get(t.Context(), s, &backends.GetOptions{Range: &backends.Range{}}); !errors.Is(err, backends.ErrRange) {
		t.Errorf("got %v, want ErrRange", err)
	}
}

func TestCloseOfAnUnreadBodyHangsUp(t *testing.T) {
	gone := make(chan error, 1)
	s := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000000000")
		buf := make([]byte, 1<<20)
		for {
			if _, err := w.Write(buf); err != nil {
				gone <- err
				return
			}
		}
	})
	obj, err := s.Get(t.Context(), object, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(obj.Body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := obj.Body.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the connection is still there 5 seconds after Close")
	}
}

func TestConnectionIsUsedAgainAfterABodyThatWasRead(t *testing.T) {
	var mu sync.Mutex
	peers := map[string]bool{}
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		peers[r.RemoteAddr] = true
		mu.Unlock()
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(make([]byte, 100000))
	})
	for range 3 {
		obj, err := s.Get(t.Context(), object, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(obj.Body, make([]byte, 100000)); err != nil { // and not one byte more
			t.Fatal(err)
		}
		obj.Body.Close()
	}
	if len(peers) != 1 {
		t.Errorf("got %d connections, want 1", len(peers))
	}
}

func TestRefusedBodyIsNotSent(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusPreconditionFailed)
	})
	body := &zeros{left: 100 << 20}
	_, err := s.Put(t.Context(), object, backends.Body{Reader: body, Size: 100 << 20}, nil)
	if !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("got %v, want ErrPrecondition", err)
	}
	if got := 100<<20 - body.left; got != 0 {
		t.Errorf("%d bytes of the body were read, want none", got)
	}
}

func TestSuccessBeforeTheBodyIsAnError(t *testing.T) {
	s := scripted(t, raw("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
	if err := put(t.Context(), s, 100<<20, nil); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestBodysErrorComesBackAndTheRequestIsCut(t *testing.T) {
	broken := errors.New("broken")
	long := &backends.PutOptions{}
	for name, tt := range map[string]struct {
		reader io.Reader
		size   int64
		want   error
	}{
		"fails, small":      {io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), 10, broken},
		"fails, large":      {io.MultiReader(&zeros{left: 5 << 20}, iotest.ErrReader(broken)), 10 << 20, broken},
		"fails at its end":  {io.MultiReader(&zeros{left: 5 << 20}, iotest.ErrReader(broken)), 5 << 20, broken},
		"ends early, small": {strings.NewReader("abc"), 10, io.ErrUnexpectedEOF},
		"ends early, large": {&zeros{left: 5 << 20}, 10 << 20, io.ErrUnexpectedEOF},
		"goes on, small":    {strings.NewReader("abc"), 2, backends.ErrLongBody},
		"goes on, large":    {&zeros{left: 5<<20 + 1}, 5 << 20, backends.ErrLongBody},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := make(chan bool, 1)
			s := scripted(t, func(_ http.ResponseWriter, r *http.Request) {
				n, err := io.Copy(io.Discard, r.Body)
				whole <- err == nil && n == r.ContentLength
			})
			_, err := s.Put(t.Context(), object, backends.Body{Reader: tt.reader, Size: tt.size}, long)
			if !errors.Is(err, tt.want) || isOfContract(err) {
				t.Errorf("got %v, want %v and no error of the store", err, tt.want)
			}
			if tt.size > 64<<10 && <-whole {
				t.Error("the server got a whole request")
			}
		})
	}
}

func TestNothingReadsTheBodyOnceACallHasReturned(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		w.WriteHeader(http.StatusPreconditionFailed)
	})
	body := &zeros{left: 1 << 40} // the race detector watches its field
	for range 20 {
		_, err := s.Put(t.Context(), object, backends.Body{Reader: body, Size: 1 << 30}, nil)
		if err == nil {
			t.Fatal("got no error")
		}
		body.left = 1 << 40
	}
}

func TestErrorsShowNoSecret(t *testing.T) {
	var buf bytes.Buffer
	s := scripted(t, failure(403, "SignatureDoesNotMatch", nil))
	for _, call := range calls(s) {
		fmt.Fprintf(&buf, "%v %+v\n", call(t.Context()), s)
	}
	if strings.Contains(buf.String(), "secret ") || strings.Contains(buf.String(), "Signature=") {
		t.Errorf("got %s", buf.String())
	}
}
