package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	childGrace    = 15 * time.Second // from SIGTERM to SIGKILL
	childHealthy  = time.Minute      // after which a failure counts as the first
	childFirstTry = 250 * time.Millisecond
	childLastTry  = 10 * time.Second
)

// child is a process that is started again when it dies: the KMS of `chatelaine
// up`. It is one of its own because a vendor's library may crash in it.
type child struct {
	// command makes the process to be. It is called for each start.
	command func(ctx context.Context) *exec.Cmd
	log     *zap.Logger

	once  sync.Once
	ready chan struct{} // closed once it has been ready for the first time
}

func newChild(command func(ctx context.Context) *exec.Cmd, log *zap.Logger) *child {
	return &child{command: command, log: log, ready: make(chan struct{})}
}

// reportReady is told by the process itself.
func (c *child) reportReady() {
	first := false
	c.once.Do(func() { close(c.ready); first = true })
	if !first {
		c.log.Info("the KMS process serves again")
	}
}

// run keeps the process alive until ctx ends, then stops it and returns nil. It
// gives up where starting again cannot help: when the process ends before it was ever
// ready, and when it says that its configuration is wrong, which a PIN that is no
// longer right is too; the latter with the process's own exit code.
func (c *child) run(ctx context.Context) error {
	wait := childFirstTry
	for {
		begun := time.Now()
		err := c.start(ctx)
		if ctx.Err() != nil {
			return nil
		}
		code := codeOf(err)
		if !c.wasReady() || code == exitConfig {
			if code != exitConfig {
				code = exitFailure // a crash may have the code of something else
			}
			return &exitError{code, fmt.Errorf("the KMS process ended: %w", errOf(err))}
		}
		if time.Since(begun) > childHealthy {
			wait = childFirstTry
		}
		c.log.Error("the KMS process ended and is started again", zap.Error(errOf(err)), zap.Duration("in", wait))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, childLastTry)
	}
}

// start runs the process once. It holds the thread, because Linux takes the death of
// the thread that started a process for the death of the parent.
func (c *child) start(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := c.command(ctx)
	cmd.SysProcAttr = childAttributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = childGrace
	return cmd.Run()
}

func (c *child) wasReady() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// codeOf is the exit code of a process, or -1 when a signal ended it or it could not
// be started.
func codeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

func errOf(err error) error {
	if err == nil {
		return errors.New("without an error, though nobody asked it to")
	}
	return err
}
