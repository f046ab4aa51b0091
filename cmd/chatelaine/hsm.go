package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"chatelaine/hsm"
	"chatelaine/kms"
	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/config/settings"
	"chatelaine/kms/pkcs11"
)

// hsmWatch is what all providers on an HSM share: the loaded modules, the collector of
// what is done, and an ear for calls that hang.
type hsmWatch struct {
	modules hsm.Modules

	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	hung    *prometheus.CounterVec

	sessions, busy, breaker *prometheus.Desc
	states                  map[string]func() []hsm.State // by provider; filled before it is registered

	stuck chan string // the first operation that hangs
}

func newHSMWatch() *hsmWatch {
	gauge := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("chatelaine_hsm_"+name, help, []string{"provider", "token"}, nil)
	}
	return &hsmWatch{
		states: map[string]func() []hsm.State{},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chatelaine_hsm_calls_total", Help: "Operations of the HSM by what the module answered.",
		}, []string{"op", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "chatelaine_hsm_call_seconds", Help: "Duration of the HSM's operations.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 3, 12),
		}, []string{"op"}),
		hung: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chatelaine_hsm_hung_total", Help: "Operations of the HSM that did not return.",
		}, []string{"op"}),
		sessions: gauge("sessions", "Sessions in the pool of a token."),
		busy:     gauge("sessions_in_use", "Sessions of a token that are in use."),
		breaker:  gauge("breaker_open", "1 while a token is lost or refuses, and calls fail without reaching it."),
		stuck:    make(chan string, 1),
	}
}

// observe is hsm.Config.Observe.
func (w *hsmWatch) observe(operation, code string, took time.Duration) {
	w.calls.WithLabelValues(operation, code).Inc()
	w.seconds.WithLabelValues(operation).Observe(took.Seconds())
}

// hangs is hsm.Config.Hung.
func (w *hsmWatch) hangs(operation string) {
	w.hung.WithLabelValues(operation).Inc()
	select {
	case w.stuck <- operation:
	default:
	}
}

// wait returns an error when a call hangs, and nil when ctx ends.
func (w *hsmWatch) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case operation := <-w.stuck:
		return fmt.Errorf("kms: %w from %q: this process ends, so that a new one can serve", errHung, operation)
	}
}

// errHung: only the end of the process ends a call that hangs.
var errHung = errors.New("the HSM's module has not come back")

// close ends providers and modules, as why says that the process ends, and returns all
// that is wrong. A module in which a call hangs is not waited for: every moment counts.
func (w *hsmWatch) close(providers map[string]kms.Provider, why error) error {
	if errors.Is(why, errHung) {
		return why
	}
	if err := closeProviders(providers); err != nil {
		return errors.Join(why, err)
	}
	return errors.Join(why, w.modules.Close())
}

// Describe implements prometheus.Collector.
func (w *hsmWatch) Describe(ch chan<- *prometheus.Desc) {
	w.calls.Describe(ch)
	w.seconds.Describe(ch)
	w.hung.Describe(ch)
	ch <- w.sessions
	ch <- w.busy
	ch <- w.breaker
}

// Collect implements prometheus.Collector.
func (w *hsmWatch) Collect(ch chan<- prometheus.Metric) {
	w.calls.Collect(ch)
	w.seconds.Collect(ch)
	w.hung.Collect(ch)
	for provider, states := range w.states {
		for _, s := range states() {
			open := 0.0
			if s.Open {
				open = 1
			}
			ch <- prometheus.MustNewConstMetric(w.sessions, prometheus.GaugeValue, float64(s.Sessions), provider, s.Token)
			ch <- prometheus.MustNewConstMetric(w.busy, prometheus.GaugeValue, float64(s.Busy), provider, s.Token)
			ch <- prometheus.MustNewConstMetric(w.breaker, prometheus.GaugeValue, open, provider, s.Token)
		}
	}
}

// mostWaiting is the most threads that are added for calls that wait.
const mostWaiting = 16

// makeRoom has Go run as many threads more as calls may wait in modules at once, up to
// mostWaiting. A call in C keeps its processor (GOMAXPROCS) until the runtime takes that
// away, which it does after up to 10 ms: with two processors two calls of a network HSM
// would stop everything else, and 30 sessions would do hardly more than two.
// GOMAXPROCS in the environment wins.
func makeRoom(c kmsconfig.Config) {
	waiting := 0
	for _, p := range append(slices.Collect(maps.Values(c.Providers)), c.Provider) {
		if p.PKCS11 != nil {
			waiting += cmp.Or(p.PKCS11.MaxSessions, hsm.DefaultSessions)
		}
	}
	if waiting > 0 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + min(waiting, mostWaiting))
	}
}

func openPKCS11(ctx context.Context, name string, c kmsconfig.PKCS11, watch *hsmWatch, logger *zap.Logger) (kms.Provider, error) {
	configs := make([]hsm.Config, 0, 1+len(c.Failover))
	for _, token := range append([]kmsconfig.Token{c.First()}, c.Failover...) {
		cfg, err := tokenOf(c, token)
		if err != nil {
			return nil, err
		}
		cfg.Logger, cfg.Observe, cfg.Hung, cfg.Modules = logger, watch.observe, watch.hangs, &watch.modules
		configs = append(configs, cfg)
	}
	provider, err := pkcs11.New(ctx, pkcs11.Config{
		Prefix: c.Prefix, HSM: configs[0], Failover: configs[1:],
		Mechanism: hsm.Mechanism(c.Mechanism), Mechanisms: mechanismsOf(c),
	})
	if err != nil {
		return nil, err
	}
	watch.states[name] = provider.States
	return provider, nil
}

// tokenOf is how package hsm opens a token that a configuration names. The PIN is read
// where the configuration says, if it says.
func tokenOf(c kmsconfig.PKCS11, token kmsconfig.Token) (hsm.Config, error) {
	cfg, err := tokenConfig(inherit(token, c.First()))
	if err != nil {
		return hsm.Config{}, usageError{err}
	}
	cfg.MaxSessions, cfg.Deadline, cfg.Mechanism, cfg.RSABits = c.MaxSessions, c.Deadline, hsm.Mechanism(c.Mechanism), c.RSABits
	cfg.UserType, cfg.ReadOnly = uint(c.UserType), c.ReadOnly
	return cfg, nil
}

// mechanismsOf are the exceptions from the configured mechanism, by the KEK's name.
func mechanismsOf(c kmsconfig.PKCS11) map[string]hsm.Mechanism {
	mechanisms := make(map[string]hsm.Mechanism, len(c.Mechanisms))
	for name, m := range c.Mechanisms {
		mechanisms[name] = hsm.Mechanism(m)
	}
	return mechanisms
}

// inherit fills in what a further token has from the first.
func inherit(token, first kmsconfig.Token) kmsconfig.Token {
	if token.Module == "" && !strings.Contains(token.Name, "module-path=") {
		token.Module = first.Module
	}
	if token.Parameters == "" && token.Module != "" && token.Module == first.Module {
		token.Parameters = first.Parameters
	}
	if !token.PIN().Given() && !strings.Contains(token.Name, "pin-source=") {
		token.PINFile, token.PINEnv = first.PINFile, first.PINEnv
	}
	return token
}

// tokenConfig reads a label or a pkcs11: URI, and the PIN. What is set beside a URI
// counts more than what the URI says.
func tokenConfig(c kmsconfig.Token) (hsm.Config, error) {
	uri := hsm.URI{Token: hsm.Selector{Label: c.Name}}
	if strings.HasPrefix(c.Name, "pkcs11:") {
		var err error
		if uri, err = hsm.ParseURI(c.Name); err != nil {
			return hsm.Config{}, err
		}
	}
	place := c.PIN()
	if !place.Given() {
		if strings.HasPrefix(uri.PINSource, "|") {
			return hsm.Config{}, fmt.Errorf("token %q: pin-source names a program: want a file", c.Name)
		}
		place = settings.Secret{File: strings.TrimPrefix(strings.TrimPrefix(uri.PINSource, "file:"), "//")}
	}
	pin, err := place.Read()
	if err != nil {
		return hsm.Config{}, err
	}
	module := c.Module
	if module == "" {
		module = uri.ModulePath
	}
	return hsm.Config{Module: module, Parameters: c.Parameters, Token: uri.Token, PIN: hsm.NewPIN(pin)}, nil
}
