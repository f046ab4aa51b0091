// Package servers starts the real servers that tests run against: object stores
// and whatever else speaks a protocol of the product. They listen on loopback,
// keep their state under the test's temporary folder and die with the test.
//
// It knows how to get and start a server, and refuses to know what is tested on it.
package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTimeout is how long a server may take to answer for the first time.
const startTimeout = 30 * time.Second

// process is a running server. Its output is in the file log.
type process struct {
	name string
	log  string
	proc *os.Process
	done chan struct{} // closed when the process has ended
}

// start runs the binary and returns once the process exists. The process gets a
// SIGKILL when this one dies, so that a test that panics leaves nothing behind.
func start(name, log string, cmd *exec.Cmd) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("servers: creating the log of %s: %w", name, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	dieWithParent(cmd)
	p := &process{name: name, log: log, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death signal is sent when the thread that forked ends, not the
		// process: the thread is kept for as long as the server runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		p.proc = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("servers: starting %s: %w", name, err)
	}
	return p, nil
}

// stop ends the server, by force if it is not gone soon.
func (p *process) stop() {
	_ = p.proc.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(2 * time.Second):
		_ = p.proc.Kill()
		<-p.done
	}
}

// await calls ready until it returns nil, the server ends or ctx does.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("servers: %s ended before it was ready: %s", p.name, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("servers: waiting for %s: %w: %w: %s", p.name, ctx.Err(), err, p.tail())
		}
	}
}

// tail is the end of what the server has printed.
func (p *process) tail() string {
	out, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(out[max(0, len(out)-2000):])
}

// freeAddress is a loopback address whose port nobody listened on a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("servers: finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// binary is the path of a tool: the value of the environment variable env, or
// what test/tools/build.sh builds.
func binary(ctx context.Context, tool, env string) (string, error) {
	if path := os.Getenv(env); path != "" {
		return path, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "test", "tools", "build.sh"), tool)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("servers: building %s: %w", tool, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// moduleRoot is the folder of the product's go.mod, above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("servers: finding the module: %w", err)
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module chatelaine\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("servers: finding the module: no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// unavailable skips the test where a server cannot be had, but never in CI.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}
