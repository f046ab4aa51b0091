package s3store

import "github.com/aws/aws-sdk-go-v2/service/s3"

// MaxScan is the longest listing that is scanned, in bytes.
const MaxScan = maxScan

// LimitAnswers bounds answers that are read whole, in bytes. Reading 16 MiB of XML
// takes the race detector seconds.
func (c *Config) LimitAnswers(n int64) { c.answers = n }

// HTTPClients are those that all requests go through.
func (s *Store) HTTPClients() map[string]s3.HTTPClient {
	return map[string]s3.HTTPClient{"most": s.client.Options().HTTPClient, "Get": s.streaming, "Complete": s.complete}
}

// Endpoint is where requests go.
func (s *Store) Endpoint() string { return s.cfg.Endpoint }
