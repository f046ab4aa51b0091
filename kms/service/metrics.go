package service

import (
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chatelaine/kms"
)

// Metrics is the collector of the KMS: calls, leases, calls to providers, and how full
// the registry is. It is a kms.Observer; give the same one to kms.Config and Config.
type Metrics struct {
	rpcs, providerCalls     *prometheus.CounterVec
	rpcSeconds, callSeconds *prometheus.HistogramVec
	leases                  prometheus.Gauge
	blockSeconds            *prometheus.HistogramVec
	canaryFailures          prometheus.Counter
	registrySize            *prometheus.GaugeVec
	registryQuota           prometheus.Gauge
}

// NewMetrics makes a collector. The caller registers it.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chatelaine_kms_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "chatelaine_kms_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 3, 10),
		}, labels)
	}
	return &Metrics{
		rpcs:          counter("rpcs_total", "Calls by operation and outcome.", "op", "code"),
		rpcSeconds:    histogram("rpc_seconds", "Duration of calls.", "op"),
		providerCalls: counter("provider_calls_total", "Calls to key providers by outcome.", "provider", "op", "code"),
		callSeconds:   histogram("provider_call_seconds", "Duration of calls to key providers.", "provider", "op"),
		leases: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chatelaine_kms_leases", Help: "Leases that gateways hold.",
		}),
		blockSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "chatelaine_block_latency_seconds", Help: "From when a block was begun until a gateway had acted on it.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30},
		}, []string{"of"}),
		canaryFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "chatelaine_canary_failures_total", Help: "Canaries that not every gateway took part in and obeyed.",
		}),
		registrySize: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chatelaine_registry_size_bytes", Help: "Size of the registry: what is in use, and its file, which is held against the quota.",
		}, []string{"of"}),
		registryQuota: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chatelaine_registry_quota_bytes", Help: "Size of the file at which the registry takes no changes any more; 0 where there is none.",
		}),
	}
}

// ProviderCall implements kms.Observer.
func (m *Metrics) ProviderCall(provider, op string, took time.Duration, err error) {
	m.providerCalls.WithLabelValues(provider, op, word(err)).Inc()
	m.callSeconds.WithLabelValues(provider, op).Observe(took.Seconds())
}

// RegistryUsage implements kms.Observer.
func (m *Metrics) RegistryUsage(u kms.Usage) {
	m.registrySize.WithLabelValues("in_use").Set(float64(u.InUse))
	m.registrySize.WithLabelValues("file").Set(float64(u.File))
	m.registryQuota.Set(float64(u.Quota))
}

func (m *Metrics) rpc(op string, err error, took time.Duration) {
	m.rpcs.WithLabelValues(op, word(err)).Inc()
	m.rpcSeconds.WithLabelValues(op).Observe(took.Seconds())
}

// blocked counts a gateway's latency, of a "block" or a "canary".
func (m *Metrics) blocked(of string, took time.Duration) {
	m.blockSeconds.WithLabelValues(of).Observe(took.Seconds())
}

// opOf is the last part of a procedure: "BucketKey".
func opOf(procedure string) string { return path.Base(procedure) }

func (m *Metrics) parts() []prometheus.Collector {
	return []prometheus.Collector{
		m.rpcs, m.rpcSeconds, m.providerCalls, m.callSeconds, m.leases, m.blockSeconds, m.canaryFailures, m.registrySize, m.registryQuota,
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.parts() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.parts() {
		c.Collect(ch)
	}
}
