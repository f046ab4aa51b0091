package server

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
)

// BenchmarkProtocols is what DECISIONS.md quotes: 64 MiB answers over TLS, written in
// 1 MiB pieces, by the protocol that carries them.
func BenchmarkProtocols(b *testing.B) {
	const size, piece = 64 << 20, 1 << 20
	body := make([]byte, piece)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range size / piece {
			_, _ = w.Write(body)
		}
	})
	for _, protocol := range []string{"http/1.1", "h2"} {
		b.Run(protocol, func(b *testing.B) {
			client, url := bare(b, handler, protocol)
			buffer := make([]byte, piece)
			b.SetBytes(size)
			for b.Loop() {
				res, err := client.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, buffer)
				if err != nil || n != size {
					b.Fatalf("%d bytes, %v", n, err)
				}
				_ = res.Body.Close()
			}
		})
	}
}

func bare(b *testing.B, handler http.Handler, protocol string) (*http.Client, string) {
	b.Helper()
	files := pairFiles(b, 1)
	cert, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		b.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(protocol == "http/1.1")
	protocols.SetHTTP2(protocol == "h2")
	server := &http.Server{Handler: handler, Protocols: &protocols, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	b.Cleanup(func() { _ = server.Close() })
	transport := &http.Transport{Protocols: &protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, "https://" + listener.Addr().String()
}
