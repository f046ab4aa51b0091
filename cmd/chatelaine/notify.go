package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// The protocol of systemd's sd_notify: one datagram "READY=1" to the socket that
// NOTIFY_SOCKET names. `chatelaine up` speaks it with its KMS process, and systemd
// with either half (Type=notify).

// notifyReady tells whoever started this process that it serves. Without
// NOTIFY_SOCKET nobody wants to know.
func notifyReady() error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if strings.HasPrefix(name, "@") { // an abstract socket
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling the service manager of readiness: %w", err)
	}
	_, err = conn.Write([]byte("READY=1"))
	return errors.Join(err, conn.Close())
}

// notifySocket is where child processes tell that they are ready.
type notifySocket struct{ conn *net.UnixConn }

// listenNotify makes the socket; the caller closes it.
func listenNotify(name string) (*notifySocket, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("making the socket for readiness: %w", err)
	}
	return &notifySocket{conn}, nil
}

// watch calls ready at each READY=1, until the socket is closed or ctx ends.
func (s *notifySocket) watch(ctx context.Context, ready func()) {
	defer context.AfterFunc(ctx, func() { _ = s.conn.Close() })()
	buffer := make([]byte, 4096)
	for {
		n, err := s.conn.Read(buffer)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(buffer[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				ready()
			}
		}
	}
}

func (s *notifySocket) name() string { return s.conn.LocalAddr().String() }
func (s *notifySocket) Close() error { return s.conn.Close() }
