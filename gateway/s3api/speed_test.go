package s3api

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

// The whole way over loopback HTTP: signature, sealing, memory store and back, with
// the client on the same cores.
func BenchmarkWholeWay(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 20} {
		w, data := newWorld(b), string(noise(size))
		put := sent{method: "PUT", path: "/bucket/k", body: data, hash: unsigned}
		b.Run(fmt.Sprintf("put/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if a := w.send(put); a.status != http.StatusOK {
					b.Fatal(a.status)
				}
			}
		})
		b.Run(fmt.Sprintf("get/%d", size), func(b *testing.B) {
			w.send(put)
			b.SetBytes(int64(size))
			for b.Loop() {
				response, err := w.server.Client().Do(w.request(sent{method: "GET", path: "/bucket/k"}))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, response.Body); err != nil || n != int64(size) {
					b.Fatal(n, err)
				}
				response.Body.Close()
			}
		})
	}
}
