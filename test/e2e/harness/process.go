package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a running process of the product. Its output goes to two files, to
// which a later process of the same name appends.
type Process struct {
	PID int

	process *os.Process
	base    string // path of the output files, without .out and .err
	done    chan struct{}
	code    int
}

// Start runs a binary. What it prints goes to base.out and base.err. It is killed
// when this process ends, however that happens.
func Start(binary, base string, args, env []string) (*Process, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(environment(), env...)
	out, err := appendTo(base + ".out")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	errs, err := appendTo(base + ".err")
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	dieWithParent(cmd)
	p := &Process{base: base, done: make(chan struct{})}
	if err := p.run(cmd); err != nil {
		return nil, fmt.Errorf("harness: starting %q: %w", binary, err)
	}
	return p, nil
}

func appendTo(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("harness: opening a file for output: %w", err)
	}
	return f, nil
}

// run starts cmd from a thread that lives as long as the process: Linux takes the
// death of that thread for the death of the parent.
func (p *Process) run(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err != nil {
			started <- err
			return
		}
		p.process, p.PID = cmd.Process, cmd.Process.Pid
		started <- nil
		_ = cmd.Wait() // the code says how it ended
		p.code = cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	return <-started
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.process.Signal(s) }

// Kill is kill -9. It returns when the process is gone.
func (p *Process) Kill() {
	_ = p.process.Kill()
	<-p.done
}

// Wait returns the exit code, -1 where a signal ended it, once the process has ended
// by itself.
func (p *Process) Wait(patience time.Duration) (int, error) {
	select {
	case <-p.done:
		return p.code, nil
	case <-time.After(patience):
		return 0, fmt.Errorf("harness: process %d still runs after %v", p.PID, patience)
	}
}

// Stop is Ctrl-C, and kill -9 for what does not obey within the patience, which is an
// error, as is an exit code other than 0.
func (p *Process) Stop(patience time.Duration) error {
	if err := p.Signal(syscall.SIGINT); errors.Is(err, os.ErrProcessDone) {
		<-p.done
		return fmt.Errorf("harness: process %d had ended with code %d: %s", p.PID, p.code, p.Stderr())
	}
	code, err := p.Wait(patience)
	if err != nil {
		p.Kill()
		return err
	}
	if code != 0 {
		return fmt.Errorf("harness: process %d ended with code %d: %s", p.PID, code, tail(p.Stderr()))
	}
	return nil
}

// Stdout is what processes of this name have printed so far.
func (p *Process) Stdout() string { return p.read(".out") }

// Stderr is what processes of this name have logged so far.
func (p *Process) Stderr() string { return p.read(".err") }

func (p *Process) read(ext string) string {
	text, err := os.ReadFile(p.base + ext)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

// Await calls ready every few milliseconds until it returns nil, the process ends or
// the patience does.
func (p *Process) Await(ctx context.Context, patience time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
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
			return &EarlyEndError{Code: p.code, Stderr: p.Stderr()}
		case <-ctx.Done():
			return fmt.Errorf("harness: waiting for process %d: %w: %w: %s", p.PID, ctx.Err(), err, tail(p.Stderr()))
		}
	}
}

// EarlyEndError says that a process ended before it was ready.
type EarlyEndError struct {
	Code   int
	Stderr string
}

func (e *EarlyEndError) Error() string {
	return fmt.Sprintf("harness: the process ended with code %d before it was ready: %s", e.Code, tail(e.Stderr))
}
