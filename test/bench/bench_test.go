package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuantileIsWhatSoManyDoNotExceed(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, tt := range []struct {
		list    []time.Duration
		percent int
		want    time.Duration
	}{
		{nil, 50, 0},
		{[]time.Duration{7}, 50, 7},
		{[]time.Duration{7}, 99, 7},
		{[]time.Duration{1, 9}, 50, 1},
		{[]time.Duration{1, 9}, 99, 9},
		{hundred, 50, 50},
		{hundred, 99, 99},
	} {
		if got := quantile(tt.list, tt.percent); got != tt.want {
			t.Errorf("%d %% of %d values: got %d, want %d", tt.percent, len(tt.list), got, tt.want)
		}
	}
}

func TestNumbersHaveUnits(t *testing.T) {
	got, err := numbers("4KiB,1MiB,32")
	if want := []int64{4096, 1 << 20, 32}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v and %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "0", "-1", "4KB", "MiB", "1,,2"} {
		if got, err := numbers(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

func TestFlagsMakeTheCells(t *testing.T) {
	o, err := parse([]string{"-sizes", "1MiB,64MiB", "-concurrency", "1,8", "-operations", "GET"})
	if err != nil || len(o.cells()) != 4 || o.cells()[3] != (cell{"GET", 64 << 20, 8}) {
		t.Errorf("got %v and %v, want four cells", o, err)
	}
	if _, err := parse([]string{"-operations", "HEAD"}); err == nil {
		t.Error("an unknown operation is taken")
	}
}

func TestReportHoldsRatios(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	r.row(cell{"PUT", 1 << 20, 8},
		result{requests: 100, bytes: 100 << 20, took: time.Second, p50: 10 * time.Millisecond},
		result{requests: 50, bytes: 50 << 20, took: time.Second, p50: 25 * time.Millisecond, cpu: time.Second / 10, peak: 90 << 20})
	r.end()
	for _, want := range []string{"104.9", "52.4", "0.50", "10.0ms", "25.0ms", "2.50", "1.91", "2000", "90 MiB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got no %q in\n%s", want, out.String())
		}
	}
}
