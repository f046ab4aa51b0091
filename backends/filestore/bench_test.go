package filestore

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"chatelaine/backends"
)

// zeros is a source that costs nothing.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	z.left -= n
	return int(n), nil
}

func benchStore(b *testing.B, sync bool) (*Store, backends.ObjectID) {
	b.Helper()
	s, err := New(Config{Root: b.TempDir()})
	if err == nil {
		err = s.CreateBucket(context.Background(), "bucket")
	}
	if err != nil {
		b.Fatal(err)
	}
	if !sync {
		s.fsync = noSync
	}
	b.Cleanup(func() { s.Close() })
	return s, backends.ObjectID{Bucket: "bucket", Key: "dir/key"}
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int64{4 << 10, 1 << 20, 1 << 30} {
		for name, sync := range map[string]bool{"synced": true, "page-cache": false} {
			b.Run(fmt.Sprintf("%d/%s", size, name), func(b *testing.B) {
				s, id := benchStore(b, sync)
				b.SetBytes(size)
				cpu := cpuSeconds()
				for b.Loop() {
					if _, err := s.Put(b.Context(), id, backends.Body{Reader: &zeros{size}, Size: size}, nil); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric((cpuSeconds()-cpu)/float64(b.N)/float64(size)*1e9, "cpu-s/GB")
			})
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int64{4 << 10, 1 << 20, 1 << 30} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s, id := benchStore(b, false)
			if _, err := s.Put(b.Context(), id, backends.Body{Reader: &zeros{size}, Size: size}, nil); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			cpu, buf := cpuSeconds(), make([]byte, 1<<20)
			for b.Loop() {
				o, err := s.Get(b.Context(), id, nil)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{o.Body}, buf); n != size || err != nil {
					b.Fatal(n, err)
				}
				o.Body.Close()
			}
			b.ReportMetric((cpuSeconds()-cpu)/float64(b.N)/float64(size)*1e9, "cpu-s/GB")
		})
	}
}

// BenchmarkComplete has parts of 64 MiB: its time must not depend on that.
func BenchmarkComplete(b *testing.B) {
	s, id := benchStore(b, true)
	const size = 64 << 20
	for b.Loop() {
		b.StopTimer()
		up, err := s.CreateUpload(b.Context(), id.Bucket, id.Key, backends.Attributes{})
		if err != nil {
			b.Fatal(err)
		}
		var parts []backends.Part
		for i := range 4 {
			p, err := s.PutPart(b.Context(), up, i+1, backends.Body{Reader: &zeros{size}, Size: size})
			if err != nil {
				b.Fatal(err)
			}
			parts = append(parts, p)
		}
		if _, err := s.Delete(b.Context(), id, nil); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := s.Complete(b.Context(), up, parts, backends.Conditions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkListPage lists pages in the middle of a flat bucket of 100,000 keys.
func BenchmarkListPage(b *testing.B) {
	s, id := benchStore(b, false)
	for i := range 100000 {
		h, err := header{Key: fmt.Sprintf("%06d", i), ETag: "e"}.encode()
		if err == nil {
			err = os.WriteFile(s.objects(id.Bucket)+fmt.Sprintf("/%06d", i), h, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		page, err := s.List(b.Context(), id.Bucket, &backends.ListOptions{After: "050000"})
		if err != nil || len(page.Entries) != 1000 {
			b.Fatal(len(page.Entries), err)
		}
	}
}
