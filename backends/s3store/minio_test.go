package s3store_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
	"chatelaine/backends/s3store"
	"chatelaine/test/servers"
)

// minio is one server for all tests; TestMain stops it.
var minio servers.Shared

func TestMain(m *testing.M) {
	if scheme := os.Getenv(sinkEnv); scheme != "" {
		serveSink(scheme)
		return
	}
	code := m.Run()
	minio.Stop()
	versitygw.Stop()
	cephs.Stop()
	os.Exit(code)
}

func configOf(s *servers.S3) s3store.Config {
	return s3store.Config{
		Endpoint:        s.Endpoint,
		Region:          s.Region,
		PathStyle:       true,
		AccessKeyID:     s.AccessKeyID,
		SecretAccessKey: s3store.NewSecret(s.SecretAccessKey),
	}
}

func open(t testing.TB, cfg s3store.Config) *s3store.Store {
	t.Helper()
	s, err := s3store.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// onMinIO is a store with a bucket named bucket, on a server that other tests use.
func onMinIO(t testing.TB, cfg s3store.Config) *s3store.Store {
	t.Helper()
	s := open(t, cfg)
	if err := s.CreateBucket(t.Context(), object.Bucket); err != nil && !errors.Is(err, backends.ErrBucketExists) {
		t.Fatal(err)
	}
	return s
}

// minioOptions are what MinIO does otherwise than S3.
func minioOptions() backendtest.Options {
	return backendtest.Options{
		Refuses:             minioRefuses,
		Merges:              true,
		NoConditionalDelete: true,
		UploadsByKeyOnly:    true,
		AbortsUnknown:       true,
		ReadersBlockWriters: true,
		LocksAtCreation:     true,
		MarksObjectsOnly:    true,
		NamelessNull:        true,
		NamelessTags:        true,
		PlainTags:           true,
		MarkersInPrefixes:   true,
	}
}

// minioRefuses says which keys MinIO cannot hold, as its objects are folders.
func minioRefuses(key string) bool {
	if strings.HasPrefix(key, "/") {
		return true // s3store does, as MinIO would drop the slash
	}
	segments := strings.Split(strings.TrimSuffix(key, "/"), "/")
	return slices.ContainsFunc(segments, func(s string) bool {
		return s == "" || s == "." || s == ".." || len(s) > 255
	})
}

// The suite has a model for this, whose keys MinIO cannot hold.
func TestPagesOfVersionsOnMinIOAddUp(t *testing.T) {
	s := open(t, configOf(minio.MinIO(t)))
	const bucket = "pages-of-versions"
	if err := errors.Join(s.CreateBucket(t.Context(), bucket), s.SetVersioning(t.Context(), bucket, backends.VersioningEnabled)); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a b/1", "a b/2", "b+", "b+c", "c/d/1", "c/d/2", "c/e", "z"} {
		for n := range 3 {
			_, err := s.Put(t.Context(), backends.ObjectID{Bucket: bucket, Key: key}, text(key), nil)
			if n == 1 {
				_, err = s.Delete(t.Context(), backends.ObjectID{Bucket: bucket, Key: key}, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for opts, want := range map[backends.ListVersionsOptions]int{
		{}:                                   32,
		{Prefix: "b+"}:                       8,
		{Prefix: "b+c"}:                      4,
		{Prefix: "c/"}:                       12,
		{Delimiter: "/"}:                     12 + 2,
		{Prefix: "c/", Delimiter: "/"}:       4 + 1,
		{KeyMarker: "b+"}:                    20,
		{KeyMarker: "c/d/1", Delimiter: "/"}: 4,
	} {
		whole := versionPages(t, s, bucket, opts)
		if len(whole) != want {
			t.Errorf("%+v: got %q, want %d rows", opts, whole, want)
		}
		for opts.Limit = 1; opts.Limit < 6; opts.Limit++ {
			if got := versionPages(t, s, bucket, opts); !slices.Equal(got, whole) {
				t.Errorf("%+v: got %q, want %q", opts, got, whole)
			}
		}
	}
}

// versionPages lists all that the pages have, prefixes last.
func versionPages(t *testing.T, s *s3store.Store, bucket string, opts backends.ListVersionsOptions) (rows []string) {
	t.Helper()
	var prefixes []string
	for range 100 {
		page, err := s.ListVersions(t.Context(), bucket, &opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Versions {
			rows = append(rows, v.Key+" "+v.Version)
		}
		prefixes = append(prefixes, page.Prefixes...)
		if !page.Truncated {
			return append(rows, prefixes...)
		}
		opts.KeyMarker, opts.VersionMarker = page.NextKey, page.NextVersionMark
	}
	t.Fatalf("%+v: there is no end to it", opts)
	return nil
}

func TestContractOnMinIO(t *testing.T) {
	minioOptions().Run(t, func(t *testing.T) backends.Store { return offered(t, speaking(minio.MinIO(t), "minio")) })
}
