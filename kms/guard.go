package kms

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Observer is told of each call to a provider, and of how full the registry is. It may
// be called concurrently and must not block.
type Observer interface {
	ProviderCall(provider, op string, took time.Duration, err error)
	RegistryUsage(u Usage)
}

type silent struct{}

func (silent) ProviderCall(string, string, time.Duration, error) {}
func (silent) RegistryUsage(Usage)                               {}

// guard puts a deadline around each call to a provider, as a device can hang for
// minutes, and tells the observer.
type guard struct {
	Provider
	name     string
	timeout  time.Duration
	observer Observer
}

func (g *guard) do(ctx context.Context, op string, call func(context.Context) error) error {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	err := call(bounded)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: provider %q took over %v: %w", ErrUnavailable, g.name, g.timeout, err)
	}
	g.observer.ProviderCall(g.name, op, time.Since(began), err)
	return err
}

func (g *guard) Create(ctx context.Context, ref KeyRef) (info KeyInfo, err error) {
	err = g.do(ctx, "create", func(ctx context.Context) error {
		info, err = g.Provider.Create(ctx, ref)
		return err
	})
	return info, err
}

func (g *guard) Inspect(ctx context.Context, ref KeyRef) (info KeyInfo, err error) {
	err = g.do(ctx, "inspect", func(ctx context.Context) error {
		info, err = g.Provider.Inspect(ctx, ref)
		return err
	})
	return info, err
}

func (g *guard) Destroy(ctx context.Context, ref KeyRef) error {
	return g.do(ctx, "destroy", func(ctx context.Context) error { return g.Provider.Destroy(ctx, ref) })
}

func (g *guard) Wrap(ctx context.Context, ref KeyRef, b Binding, secret []byte) (wrapped []byte, err error) {
	err = g.do(ctx, "wrap", func(ctx context.Context) error {
		wrapped, err = g.Provider.Wrap(ctx, ref, b, secret)
		return err
	})
	return wrapped, err
}

func (g *guard) Unwrap(ctx context.Context, ref KeyRef, b Binding, wrapped []byte) (secret []byte, err error) {
	err = g.do(ctx, "unwrap", func(ctx context.Context) error {
		secret, err = g.Provider.Unwrap(ctx, ref, b, wrapped)
		return err
	})
	return secret, err
}

func (g *guard) Random(ctx context.Context, n int) (random []byte, err error) {
	err = g.do(ctx, "random", func(ctx context.Context) error {
		random, err = g.Provider.Random(ctx, n)
		return err
	})
	return random, err
}

func (g *guard) Check(ctx context.Context) error {
	return g.do(ctx, "check", g.Provider.Check)
}
