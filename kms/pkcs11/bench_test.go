package pkcs11_test

import (
	"testing"

	"chatelaine/hsm/hsmtest"
	"chatelaine/kms/pkcs11"
)

// Compare with BenchmarkBareLoop of package hsm.
func BenchmarkProvider(b *testing.B) {
	p := open(b, pkcs11.Config{HSM: hsmtest.Token(b)})
	if _, err := p.Create(b.Context(), ref); err != nil {
		b.Fatal(err)
	}
	secret := make([]byte, 32)
	wrapped, err := p.Wrap(b.Context(), ref, binding, secret)
	if err != nil {
		b.Fatal(err)
	}
	wrap := func() error { _, err := p.Wrap(b.Context(), ref, binding, secret); return err }
	unwrap := func() error { _, err := p.Unwrap(b.Context(), ref, binding, wrapped); return err }
	b.Run("wrap", func(b *testing.B) { loop(b, wrap) })
	b.Run("unwrap", func(b *testing.B) { loop(b, unwrap) })
	b.Run("wrap-parallel", func(b *testing.B) { parallel(b, wrap) })
	b.Run("unwrap-parallel", func(b *testing.B) { parallel(b, unwrap) })
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
