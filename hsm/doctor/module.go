package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"chatelaine/hsm"
)

// loadWithin loads the module, for no longer than it may take.
func loadWithin(ctx context.Context, path, parameters string, most time.Duration) (*hsm.Library, error) {
	return within(ctx, most, "loading", func() (*hsm.Library, error) { return hsm.LoadWith(path, parameters) })
}

// within waits for f, which cannot be stopped, no longer than it may take. Then f goes
// on in its goroutine.
func within[T any](ctx context.Context, most time.Duration, doing string, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := f()
		done <- answer{value, err}
	}()
	timer := time.NewTimer(most)
	defer timer.Stop()
	var none T
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-timer.C:
		return none, fmt.Errorf("%w: %s: the module has not answered for %v", hsm.ErrUnavailable, doing, most)
	}
}

// parts are the ends of labels of which a key may be made up.
func parts() []string { return []string{"", "#enc", "#mac"} }

// cutPart takes the end of a part off a label.
func cutPart(label string) string {
	for _, part := range parts() {
		label = strings.TrimSuffix(label, part)
	}
	return label
}
