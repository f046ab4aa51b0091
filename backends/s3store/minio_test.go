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

func TestContractOnMinIO(t *testing.T) {
	minioOptions().Run(t, func(t *testing.T) backends.Store { return open(t, configOf(minio.MinIO(t))) })
}
