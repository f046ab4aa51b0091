// Command bench runs one load on a MinIO, bare and through the gateway in turn, and
// prints throughput, latency, and what the gateway costs in processor time and
// memory, with ratios. `make bench` runs it; -quick takes a minute instead of five.
//
// It measures from outside, with a client that does as little as it can, and refuses
// to know how the product works.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	sizes, concurrencies []int64
	operations           []string
	duration, warmup     time.Duration
	dir, kek             string
	guard                bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	s, err := openStage(ctx, o)
	if err != nil {
		return err
	}
	defer s.close()
	fmt.Printf("%d processors, %s, data in %s, %s a cell, %d cells on each of bare MinIO and the gateway before it\n\n",
		runtime.NumCPU(), runtime.Version(), s.dir, o.duration, len(o.cells()))
	return measure(ctx, s, o)
}

// measure runs all cells, each on both targets one after the other, so that what else
// the machine does meets both.
func measure(ctx context.Context, s *stage, o *options) error {
	r := newReport(os.Stdout)
	for _, c := range o.cells() {
		var results [2]result
		for i, target := range []*target{s.bare, s.through} {
			if err := target.prepare(ctx, c); err != nil {
				return fmt.Errorf("preparing %v: %w", c, err)
			}
			var err error
			if results[i], err = target.run(ctx, c, o); err != nil {
				return fmt.Errorf("running %v on %s: %w", c, target.name, err)
			}
		}
		r.row(c, results[0], results[1])
	}
	r.end()
	return nil
}

// cell is one load.
type cell struct {
	operation   string // GET or PUT
	size        int64  // bytes of each object
	concurrency int64
}

// String names the cell in errors.
func (c cell) String() string {
	return fmt.Sprintf("%s of %s, %d at once", c.operation, binaryUnit(c.size), c.concurrency)
}

func (o *options) cells() (list []cell) {
	for _, operation := range o.operations {
		for _, size := range o.sizes {
			for _, concurrency := range o.concurrencies {
				list = append(list, cell{operation, size, concurrency})
			}
		}
	}
	return list
}

func parse(args []string) (*options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	sizes := flags.String("sizes", "4KiB,1MiB,64MiB", "sizes of objects")
	concurrencies := flags.String("concurrency", "1,8,32", "requests at once")
	operations := flags.String("operations", "PUT,GET", "PUT, GET or both")
	quick := flags.Bool("quick", false, "a minute instead of five")
	o := &options{}
	flags.DurationVar(&o.duration, "duration", 6*time.Second, "how long a cell is measured on each target")
	flags.DurationVar(&o.warmup, "warmup", 500*time.Millisecond, "how long a cell runs before it is measured")
	flags.StringVar(&o.dir, "dir", "", "where MinIO keeps its data: memory (/dev/shm) if there is room for it, else the folder for temporary files")
	flags.BoolVar(&o.guard, "guard", false, "the gateway's bucket has the rollback guard")
	flags.StringVar(&o.kek, "kek", "softhsm", "as in chatelaine up")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *quick {
		o.duration, o.warmup = 1200*time.Millisecond, 200*time.Millisecond
	}
	var err error
	if o.sizes, err = numbers(*sizes); err != nil {
		return nil, err
	}
	if o.concurrencies, err = numbers(*concurrencies); err != nil {
		return nil, err
	}
	o.operations = strings.Split(*operations, ",")
	for _, operation := range o.operations {
		if operation != "PUT" && operation != "GET" {
			return nil, fmt.Errorf("operation %q: want PUT or GET", operation)
		}
	}
	return o, nil
}

// numbers reads a list such as 4KiB,1MiB,10.
func numbers(list string) ([]int64, error) {
	var out []int64
	for item := range strings.SplitSeq(list, ",") {
		unit := int64(1)
		digits := item
		for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
			if rest, ok := strings.CutSuffix(item, suffix); ok {
				digits, unit = rest, factor
			}
		}
		n, err := strconv.ParseInt(digits, 10, 32)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q: want a number above 0, with KiB, MiB or GiB where it is a size", item)
		}
		out = append(out, n*unit)
	}
	return out, nil
}

func binaryUnit(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
