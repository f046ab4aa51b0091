package main

import (
	"fmt"
	"io"
	"time"
)

// report prints a table as its rows come, and what stands out at its end.
type report struct {
	w    io.Writer
	peak int64 // bytes
}

func newReport(w io.Writer) *report {
	fmt.Fprintf(w, "%-4s %7s %3s | %10s %10s %6s | %9s %9s %6s | %9s %9s | %8s %9s %7s\n",
		"", "", "", "MB/s", "MB/s", "", "p50", "p50", "", "p99", "p99", "CPU", "CPU", "peak")
	fmt.Fprintf(w, "%-4s %7s %3s | %10s %10s %6s | %9s %9s %6s | %9s %9s | %8s %9s %7s\n",
		"", "size", "at", "bare", "gateway", "ratio", "bare", "gateway", "ratio", "bare", "gateway", "s/GB", "µs/req", "MiB")
	return &report{w: w}
}

func (r *report) row(c cell, bare, through result) {
	r.peak = max(r.peak, through.peak)
	fmt.Fprintf(r.w, "%-4s %7s %3d | %10.1f %10.1f %6.2f | %9s %9s %6.2f | %9s %9s | %8.2f %9.0f %7d\n",
		c.operation, binaryUnit(c.size), c.concurrency,
		bare.megabytes(), through.megabytes(), ratio(through.megabytes(), bare.megabytes()),
		short(bare.p50), short(through.p50), ratio(through.p50.Seconds(), bare.p50.Seconds()),
		short(bare.p99), short(through.p99),
		through.cpu.Seconds()/(float64(through.bytes)/1e9), through.cpu.Seconds()*1e6/float64(through.requests), through.peak>>20)
}

func (r *report) end() {
	fmt.Fprintf(r.w, "\nMB are 10^6 bytes, GB 10^9. CPU is the gateway's process: not the KMS, MinIO or the client, which share the processors.\n"+
		"ratio: the gateway's by bare MinIO's. Peak of the gateway's memory over all: %d MiB.\n", r.peak>>20)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// short is a time with three digits that count.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1e3)
	case d < 10*time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}
