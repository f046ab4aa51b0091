package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	checkTimeout = 3 * time.Second
	// checkKept is how long an answer is given again. A probe, or somebody who has
	// found the port, must not become load on an HSM or a bill of a cloud.
	checkKept = time.Second
)

// check is one part that S3 needs.
type check struct {
	name string
	call func(context.Context) error
	// required parts make the whole unready. A second cloud that is down must not take
	// the gateway from those who use the first.
	required bool
}

// health answers /readyz.
type health struct {
	checks   []check
	draining atomic.Bool

	mu   sync.Mutex // held while checks run: one round serves all who wait
	last verdict
}

// verdict is one round's result.
type verdict struct {
	at    time.Time
	parts map[string]string // "ok" or what is wrong
	err   error             // of required parts
}

func newHealth(c Config) *health {
	h := &health{checks: []check{{name: "kms", call: c.Keys.Ready, required: true}}}
	for name, store := range c.Stores {
		h.checks = append(h.checks, check{"backend/" + name, store.Check, name == c.DefaultStore})
	}
	return h
}

func (h *health) ready(ctx context.Context) verdict {
	if h.draining.Load() {
		return verdict{parts: map[string]string{"gateway": "draining"}, err: errors.New("gateway: draining")}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.last.at) > checkKept {
		h.last = h.round(context.WithoutCancel(ctx))
	}
	return h.last
}

// round asks all parts at once.
func (h *health) round(ctx context.Context) verdict {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	found := make([]error, len(h.checks))
	var wait sync.WaitGroup
	for i, c := range h.checks {
		wait.Go(func() { found[i] = c.call(ctx) })
	}
	wait.Wait()
	v := verdict{at: time.Now(), parts: make(map[string]string)}
	for i, c := range h.checks {
		v.parts[c.name] = "ok"
		if found[i] == nil {
			continue
		}
		v.parts[c.name] = found[i].Error()
		if c.required {
			v.err = errors.Join(v.err, fmt.Errorf("gateway: %s is not ready: %w", c.name, found[i]))
		}
	}
	return v
}

// ServeHTTP answers 200 when S3 can be served and 503 when not, with the state of
// each part as JSON.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := h.ready(r.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if v.err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": v.err == nil, "parts": v.parts})
}

// alive answers /healthz: the process runs. What it depends on is /readyz's.
func alive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte("ok\n"))
}
