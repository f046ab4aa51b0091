package keys

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is the client's collector.
type metrics struct {
	cached    *prometheus.CounterVec
	calls     *prometheus.CounterVec
	refreshes *prometheus.CounterVec
	leaseHeld prometheus.GaugeFunc
	leaseAge  prometheus.GaugeFunc
	pushed    prometheus.Gauge
	epoch     prometheus.Gauge
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chatelaine_gateway_keys_" + name, Help: help}, labels)
	}
	return &metrics{
		cached:    counter("cache_total", "Look-ups in the caches of the KMS client.", "cache", "result"),
		calls:     counter("calls_total", "Calls to the KMS.", "op", "code"),
		refreshes: counter("refreshes_total", "Refreshes in the background.", "code"),
		pushed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chatelaine_gateway_keys_push_connected", Help: "1 while the KMS tells of revocations at once.",
		}),
		epoch: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chatelaine_gateway_keys_revocation_epoch", Help: "The last revocation that was acted on.",
		}),
	}
}

// watch adds the gauges of the lease.
func (m *metrics) watch(l *lease) {
	m.leaseHeld = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "chatelaine_gateway_keys_lease_held", Help: "1 while the gateway may use keys.",
	}, func() float64 {
		if l.valid() {
			return 1
		}
		return 0
	})
	m.leaseAge = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "chatelaine_gateway_keys_lease_age_seconds", Help: "Time since the lease was last renewed; -1 without one.",
	}, func() float64 {
		if h := l.held.Load(); h != nil {
			return time.Duration(l.client.clock.now() - h.sent).Seconds()
		}
		return -1
	})
}

// cacheCounter counts the look-ups in one cache.
type cacheCounter struct{ hit, miss prometheus.Counter }

func (m *metrics) cache(name string) cacheCounter {
	return cacheCounter{hit: m.cached.WithLabelValues(name, "hit"), miss: m.cached.WithLabelValues(name, "miss")}
}

func (c cacheCounter) count(hit bool) {
	if hit {
		c.hit.Inc()
		return
	}
	c.miss.Inc()
}

func (m *metrics) call(op string, err error) { m.calls.WithLabelValues(op, outcome(err)).Inc() }

func (m *metrics) refreshed(err error) { m.refreshes.WithLabelValues(outcome(err)).Inc() }

func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (m *metrics) parts() []prometheus.Collector {
	return []prometheus.Collector{m.cached, m.calls, m.refreshes, m.leaseHeld, m.leaseAge, m.pushed, m.epoch}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.parts() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.parts() {
		c.Collect(ch)
	}
}
