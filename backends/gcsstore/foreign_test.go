package gcsstore_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"chatelaine/backends"
	"chatelaine/test/servers"
)

// others are who uses the service without the gateway.
func others(t *testing.T, endpoint string) *storage.Client {
	t.Helper()
	c, err := storage.NewClient(t.Context(), option.WithoutAuthentication(), option.WithEndpoint(endpoint+"/storage/v1/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func putForeign(ctx context.Context, o *storage.ObjectHandle, body []byte, attrs storage.ObjectAttrs) error {
	w := o.NewWriter(ctx)
	w.ObjectAttrs = attrs
	w.Name, w.Bucket = o.ObjectName(), o.BucketName()
	_, err := w.Write(body)
	return errors.Join(err, w.Close())
}

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatOthersPutThereIsReadAsItIs(t *testing.T) {
	t.Parallel()
	s, b, _ := faulty(t)
	o := others(t, b.url).Bucket("bucket").Object("data/ä b.csv")
	body := gzipped(t, strings.Repeat("1,2\n", 1000))
	err := putForeign(t.Context(), o, body, storage.ObjectAttrs{
		ContentType: "text/csv", ContentEncoding: "gzip", ContentLanguage: "de",
		ContentDisposition: `attachment; filename="a.csv"`, CacheControl: "max-age=60", Metadata: map[string]string{"Sent-By": "ann"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := backends.Headers{
		ContentEncoding: "gzip", ContentLanguage: "de", ContentDisposition: `attachment; filename="a.csv"`, CacheControl: "max-age=60",
	}
	attrs := backends.Attributes{ContentType: "text/csv", Metadata: map[string]string{"sent-by": "ann"}}
	id := backends.ObjectID{Bucket: "bucket", Key: "data/ä b.csv"}
	info, err := s.Head(t.Context(), id, nil)
	if err != nil || info.Headers != want || !reflect.DeepEqual(info.Attributes, attrs) {
		t.Errorf("Head: got %+v and %v", info, err)
	}
	for name, c := range map[string]struct {
		opts *backends.GetOptions
		want []byte
	}{
		"all":        {nil, body},
		"a range":    {&backends.GetOptions{Range: &backends.Range{Offset: 3, Length: 5}}, body[3:8]},
		"conditions": {&backends.GetOptions{Conditions: backends.Conditions{IfMatch: []string{info.ETag}}}, body},
	} {
		got, err := s.Get(t.Context(), id, c.opts)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		read, err := io.ReadAll(got.Body)
		if err != nil || !bytes.Equal(read, c.want) || got.Headers != want || !reflect.DeepEqual(got.Attributes, attrs) || got.Size != int64(len(body)) {
			t.Errorf("%s: %d bytes of %+v and %v, want %d", name, len(read), got.Info, err, len(c.want))
		}
		if err := got.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := putForeign(t.Context(), o, []byte("newer"), storage.ObjectAttrs{}); err != nil {
		t.Fatal(err)
	}
	pinned := backends.Conditions{IfMatch: []string{info.ETag}}
	if _, err := s.Get(t.Context(), id, &backends.GetOptions{Conditions: pinned}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("Get of what was replaced: %v, want ErrPrecondition", err)
	}
	if _, err := s.Put(t.Context(), id, text("sealed"), &backends.PutOptions{Conditions: pinned}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("Put over what was replaced: %v, want ErrPrecondition", err)
	}
}

// Cloud Storage says it of every private object that has none.
func TestTheServicesOwnCacheControlIsNotTheObjects(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	if _, err := s.Put(t.Context(), id, text("x"), nil); err != nil {
		t.Fatal(err)
	}
	for said, want := range map[string]string{"private, max-age=0": "", "private, max-age=1": "private, max-age=1"} {
		b.with(hits("read", 0, 1, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			w.Header().Set("Cache-Control", said)
			pass.ServeHTTP(w, r)
		}))
		o, err := s.Get(t.Context(), id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if o.Headers.CacheControl != want {
			t.Errorf("%q: got %q, want %q", said, o.Headers.CacheControl, want)
		}
		_ = o.Body.Close()
	}
}

func TestForeignRefusesBucketsWhosePlaintextWouldStay(t *testing.T) {
	t.Parallel()
	server := servers.FakeGCS(t)
	b := newBetween(t, server)
	cfg := configOf(server)
	cfg.Endpoint = b.url
	s, client := open(t, cfg), others(t, server.Endpoint)
	for name, versions := range map[string]bool{"plain": false, "versioned": true} {
		if err := client.Bucket(name).Create(t.Context(), server.Project, &storage.BucketAttrs{VersioningEnabled: versions}); err != nil {
			t.Fatal(err)
		}
	}
	for bucket, want := range map[string]error{
		"plain": nil, "versioned": backends.ErrUnsupported, "none-such": backends.ErrBucketNotFound, "N": backends.ErrInvalidName,
	} {
		if err := s.Foreign(t.Context(), bucket); !errors.Is(err, want) {
			t.Errorf("bucket %q: got %v, want %v", bucket, err, want)
		}
	}
	b.with(hits("bucket GET", 0, 1, status(http.StatusForbidden)))
	if err := s.Foreign(t.Context(), "plain"); !errors.Is(err, backends.ErrDenied) || !strings.Contains(err.Error(), "storage.buckets.get") {
		t.Errorf("without the right: got %v, want ErrDenied", err)
	}
}
