package objects

import "github.com/prometheus/client_golang/prometheus"

// metrics are labelled by backend, and nothing that a client chooses.
type metrics struct {
	plain   *prometheus.CounterVec
	adopted *prometheus.CounterVec
	// rollbacks counts what the rollback guard has found.
	rollbacks *prometheus.CounterVec
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "chatelaine", Name: name, Help: help}, labels)
	}
	return &metrics{
		plain:   counter("plaintext_reads_total", "Plaintext objects that were read or looked at, in buckets being adopted.", "store"),
		adopted: counter("adopted_objects_total", "Objects that adoptions came by, by what became of them.", "store", "outcome"),

		rollbacks: counter("rollbacks_total", "Reads at which the backend did not show the newest version of an object.", "store"),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.plain, m.adopted, m.rollbacks}
}

// Describe implements prometheus.Collector.
func (s *Service) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (s *Service) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.metrics.all() {
		c.Collect(ch)
	}
}
