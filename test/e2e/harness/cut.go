package harness

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Cut is a proxy between two processes that can be cut: then nothing passes, in either
// direction, and nobody is told, as when a cable is pulled.
type Cut struct {
	listener net.Listener
	target   string // path of a Unix socket

	mu    sync.Mutex
	whole chan struct{} // closed while the line is whole
	done  chan struct{}
	conns sync.WaitGroup
}

// NewCut listens on a Unix socket and passes on to another. The caller closes it.
func NewCut(path, target string) (*Cut, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("harness: listening: %w", err)
	}
	c := &Cut{listener: l, target: target, whole: make(chan struct{}), done: make(chan struct{})}
	close(c.whole)
	c.conns.Go(c.accept)
	return c, nil
}

// Sever cuts the line.
func (c *Cut) Sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = make(chan struct{})
}

// Mend makes it whole. What was under way arrives late.
func (c *Cut) Mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.whole)
}

// Close ends all connections.
func (c *Cut) Close() error {
	close(c.done)
	err := c.listener.Close()
	c.conns.Wait()
	return err
}

func (c *Cut) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.conns.Go(func() { c.serve(conn) })
	}
}

func (c *Cut) serve(near net.Conn) {
	defer near.Close()
	if !c.pass() {
		return
	}
	far, err := net.Dial("unix", c.target)
	if err != nil {
		return
	}
	defer far.Close()
	var ways sync.WaitGroup
	ended := make(chan struct{}, 2)
	way := func(to, from net.Conn) func() {
		return func() {
			_, _ = io.Copy(to, &line{from, c})
			ended <- struct{}{}
		}
	}
	ways.Go(way(far, near))
	ways.Go(way(near, far))
	select {
	case <-ended:
	case <-c.done:
	}
	_ = near.Close()
	_ = far.Close()
	ways.Wait()
}

// pass waits until the line is whole; false when it never will be.
func (c *Cut) pass() bool {
	c.mu.Lock()
	whole := c.whole
	c.mu.Unlock()
	select {
	case <-whole:
		return true
	case <-c.done:
		return false
	}
}

// line is one direction of a connection.
type line struct {
	net.Conn
	cut *Cut
}

var errCut = errors.New("harness: the proxy was closed")

// Read implements io.Reader.
func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if !l.cut.pass() {
		return 0, errCut
	}
	return n, err
}
