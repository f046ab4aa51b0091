package hsm_test

import (
	"testing"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

// What the pool, the deadline and the cache cost beside a bare loop on one session.
// The secret has the size of a bound bucket key, the context that of a binding.

var (
	benchSecret = make([]byte, 64)
	benchAAD    = make([]byte, 128)
)

func BenchmarkBareLoop(b *testing.B) {
	cfg := hsmtest.Token(b)
	bare, err := hsm.OpenBare(cfg.Module, cfg.Token.Label, cfg.PIN)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = bare.Close() }()
	sealed, err := bare.Encrypt(benchSecret, benchAAD)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encrypt", func(b *testing.B) {
		loop(b, func() error { _, err := bare.Encrypt(benchSecret, benchAAD); return err })
	})
	b.Run("decrypt", func(b *testing.B) {
		loop(b, func() error { _, err := bare.Decrypt(sealed, benchAAD); return err })
	})
}

func BenchmarkToken(b *testing.B) {
	token := hsmtest.Open(b)
	key := newKey(b, token, "main.v1")
	sealed, err := token.Encrypt(b.Context(), key, benchSecret, benchAAD)
	if err != nil {
		b.Fatal(err)
	}
	encrypt := func() error { _, err := token.Encrypt(b.Context(), key, benchSecret, benchAAD); return err }
	decrypt := func() error { _, err := token.Decrypt(b.Context(), key, sealed, benchAAD); return err }
	b.Run("encrypt", func(b *testing.B) { loop(b, encrypt) })
	b.Run("decrypt", func(b *testing.B) { loop(b, decrypt) })
	b.Run("encrypt-parallel", func(b *testing.B) { parallel(b, encrypt) })
	b.Run("decrypt-parallel", func(b *testing.B) { parallel(b, decrypt) })
}

func loop(b *testing.B, f func() error) {
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

func parallel(b *testing.B, f func() error) {
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := f(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}
