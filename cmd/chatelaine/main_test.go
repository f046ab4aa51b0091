package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the program: `up` starts its own executable as
// the KMS, and tests start it as `up`.
func TestMain(m *testing.M) {
	if os.Getenv("BE_CHATELAINE") != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// program is a running chatelaine.
type program struct {
	*exec.Cmd
	out, err output
	exited   chan struct{}
	code     int
}

// output collects what a process writes, for reading while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs the program; it is killed when the test ends.
func start(t *testing.T, environment []string, args ...string) *program {
	t.Helper()
	return startIn(t, "", environment, args...)
}

// startIn is start in another folder.
func startIn(t *testing.T, dir string, environment []string, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{Cmd: exec.Command(self, args...), exited: make(chan struct{})}
	p.Env = append(append(os.Environ(), "BE_CHATELAINE=1", briefly()), environment...)
	p.Dir = dir
	p.Stdout, p.Stderr = &p.out, &p.err
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait()
		p.code = p.ProcessState.ExitCode()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.exited
	})
	return p
}

// briefly has the race detector look on for 20 ms after main has returned, for races of
// goroutines that are left then, and not for a second at the end of each command.
func briefly() string { return "GORACE=atexit_sleep_ms=20 " + os.Getenv("GORACE") }

// end waits for the program to end by itself and returns its exit code.
func (p *program) end(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(40 * time.Second):
		t.Fatalf("it does not end\n%s\n%s", p.out.String(), p.err.String())
	}
	return p.code
}

// stop sends a signal and returns the exit code.
func (p *program) stop(t *testing.T, s syscall.Signal) int {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	return p.end(t)
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// startUp starts the whole product on free ports and waits for the greeting.
func startUp(t *testing.T, environment []string, args ...string) *program {
	t.Helper()
	args = append([]string{"up", "--listen", "127.0.0.1:0", "--admin-listen", adminAddress(t)}, args...)
	p := start(t, environment, args...)
	eventually(t, "the greeting", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("it ended with %d\n%s\n%s", p.code, p.out.String(), p.err.String())
		default:
		}
		return strings.Contains(p.out.String(), "nothing is lost")
	})
	return p
}

// adminAddress is a port that was free a moment ago.
func adminAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// said finds a line of the greeting by its first word.
func (p *program) said(t *testing.T, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^  ` + name + ` +(.+)$`).FindStringSubmatch(p.out.String())
	if found == nil {
		t.Fatalf("no %q in %s", name, p.out.String())
	}
	return found[1]
}

func (p *program) admin() string {
	for i, arg := range p.Args {
		if arg == "--admin-listen" {
			return "http://" + p.Args[i+1]
		}
	}
	return ""
}

// get is the status of a URL, 0 when nobody answers.
func get(url string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode
}

// kmsProcess is the pid of a program's KMS, or 0.
func (p *program) kmsProcess() int {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range all {
		text, _ := os.ReadFile(name)
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(p.Process.Pid) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		return pid
	}
	return 0
}

func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}
