// Command versitygw runs single tests of versitygw's S3 suite against a server and says
// how each of them ended.
//
//	versitygw list
//	versitygw run --endpoint URL [flags] <names
//
// The suite's own command gives every process the same bucket names, so that two of its
// tests can only run on one server one after the other, each in a process of its own. In
// one process the names differ and tests run side by side. A test that panics is a test
// that failed; one that takes too long has failed, too, and is left to itself.
//
// The account is that of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. What run prints is
// one JSON object a line: {"start":NAME} as a test begins, {"end":NAME,"error":TEXT} as it
// ends, without an error where it passed. A name that has begun and not ended when the
// process has gone took the process with it.
//
// It knows how tests are run, and refuses to know what they test or who passes them.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/versity/versitygw/tests/integration"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "versitygw:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "list":
		return list(os.Stdout)
	case len(args) > 1 && args[0] == "run":
		return run(args[1:])
	}
	return errors.New("usage: versitygw list | versitygw run --endpoint URL [flags] <names")
}

func list(out io.Writer) error {
	for _, name := range slices.Sorted(maps.Keys(integration.GetIntTests())) {
		if _, err := fmt.Fprintln(out, name); err != nil {
			return err
		}
	}
	return nil
}

// run reads names from standard input and runs their tests.
func run(args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	endpoint := flags.String("endpoint", "", "the server's URL")
	region := flags.String("region", "us-east-1", "the server's region")
	workers := flags.Int("workers", 4, "tests that run at once")
	limit := flags.Duration("limit", time.Minute, "time that one test may take")
	alone := flags.String("alone", "", "names that begin with this run first, one after the other")
	versioning := flags.Bool("versioning", false, "clean up versions after each test")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := newRunner(*limit)
	if err != nil {
		return err
	}
	options := []integration.Option{
		integration.WithAccess(os.Getenv("AWS_ACCESS_KEY_ID")),
		integration.WithSecret(os.Getenv("AWS_SECRET_ACCESS_KEY")),
		integration.WithEndpoint(*endpoint),
		integration.WithRegion(*region),
	}
	if *versioning {
		options = append(options, integration.WithVersioningEnabled())
	}
	r.conf = integration.NewS3Conf(options...)
	names, err := read(os.Stdin)
	if err != nil {
		return err
	}
	first, rest := split(names, *alone)
	r.runAll(first, 1)
	r.runAll(rest, *workers)
	return nil
}

func read(in io.Reader) ([]string, error) {
	var names []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			names = append(names, name)
		}
	}
	return names, lines.Err()
}

func split(names []string, prefix string) (with, without []string) {
	for _, name := range names {
		if prefix != "" && strings.HasPrefix(name, prefix) {
			with = append(with, name)
		} else {
			without = append(without, name)
		}
	}
	return with, without
}

// event is a line of output.
type event struct {
	Start   string  `json:"start,omitempty"`
	End     string  `json:"end,omitempty"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

type runner struct {
	conf  *integration.S3Conf
	tests integration.IntTests
	limit time.Duration

	mu  sync.Mutex
	out *json.Encoder
}

// newRunner takes standard output for itself: what the tests print goes nowhere.
func newRunner(limit time.Duration) (*runner, error) {
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	r := &runner{tests: integration.GetIntTests(), limit: limit, out: json.NewEncoder(os.Stdout)}
	os.Stdout = nowhere
	return r, nil
}

func (r *runner) say(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.out.Encode(e); err != nil {
		os.Exit(1) // nobody listens
	}
}

func (r *runner) runAll(names []string, workers int) {
	queue := make(chan string)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for name := range queue {
				r.runOne(name)
			}
		})
	}
	for _, name := range names {
		queue <- name
	}
	close(queue)
	wg.Wait()
}

func (r *runner) runOne(name string) {
	r.say(event{Start: name})
	begun := time.Now()
	done := make(chan error, 1)
	go func() { done <- r.try(name) }()
	var err error
	select {
	case err = <-done:
	case <-time.After(r.limit):
		err = fmt.Errorf("took longer than %v", r.limit)
	}
	e := event{End: name, Seconds: time.Since(begun).Round(time.Millisecond).Seconds()}
	if err != nil {
		e.Error = err.Error()
	}
	r.say(e)
}

func (r *runner) try(name string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panicked: %v", p)
		}
	}()
	test, ok := r.tests[name]
	if !ok {
		return errors.New("there is no test of this name")
	}
	return test(r.conf)
}
