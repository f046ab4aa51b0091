package keys

import (
	"os"
	"testing"
)

func BenchmarkLive(b *testing.B) {
	c, bucket := benchmarkClient(b)
	key, err := c.Current(b.Context(), bucket)
	if err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := c.Live(key.ID); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkCurrentCached(b *testing.B) {
	c, bucket := benchmarkClient(b)
	for b.Loop() {
		if _, err := c.Current(b.Context(), bucket); err != nil {
			b.Fatal(err)
		}
	}
}

// What a miss costs: an RPC over a Unix socket, reads of etcd, an unwrapping in
// software. The KMS is a process of its own.
func BenchmarkCurrentUncached(b *testing.B) {
	c, bucket := benchmarkClient(b)
	bucket.Strict = true
	for b.Loop() {
		if _, err := c.Current(b.Context(), bucket); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkClient(b *testing.B) (*Client, Bucket) {
	b.Helper()
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &process{dir: dir}
	p.start(b)
	b.Cleanup(func() { p.kill() })
	c := runningClient(b, p)
	p.eventually(b, func() error { return c.Ready(b.Context()) })
	return c, makeBucket(b, c)
}
