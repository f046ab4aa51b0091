package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// ListenConfig says where the KMS listens.
type ListenConfig struct {
	// Address is unix:///path of a socket, or https://host:port (also tcp://), which
	// is mutual TLS. There is no plain TCP.
	Address string
	// TLS is for https: the server's certificate and the authority of its clients.
	TLS    TLSFiles
	Logger *zap.Logger
}

// maxSocketPath is the longest path of a Unix socket on Linux (sun_path less its
// ending zero).
const maxSocketPath = 107

// Listen opens the listener; closing it removes a Unix socket. The socket is of
// mode 0600. One that is left over from a process that died is replaced; one that
// somebody listens on, or a file that is no socket, is an error.
func Listen(c ListenConfig) (net.Listener, error) {
	l, err := listen(c)
	if err != nil {
		return nil, fmt.Errorf("service: listening on %q: %w", c.Address, err)
	}
	return l, nil
}

func listen(c ListenConfig) (net.Listener, error) {
	network, address, err := parseAddress(c.Address)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return listenUnix(address)
	}
	reloader, err := newReloader(c.TLS, serverTLS, c.Logger)
	if err != nil {
		return nil, err
	}
	inner, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(inner, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return reloader.current(), nil
		},
	}), nil
}

// parseAddress splits an address into a network ("unix", "tcp") and what net.Dial
// wants.
func parseAddress(address string) (network, at string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", "", fmt.Errorf("%w: address: %w", kms.ErrInvalid, err)
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
		if len(u.Path) > maxSocketPath {
			return "", "", fmt.Errorf("%w: the path has %d bytes, a Unix socket's may have %d",
				kms.ErrInvalid, len(u.Path), maxSocketPath)
		}
		return "unix", u.Path, nil
	case (u.Scheme == "https" || u.Scheme == "tcp") && u.Port() != "" && strings.Trim(u.Path, "/") == "":
		return "tcp", u.Host, nil
	default:
		return "", "", fmt.Errorf("%w: want unix:///path or https://host:port", kms.ErrInvalid)
	}
}

// unixListener removes its socket when it is closed, if it still is its own.
type unixListener struct {
	*net.UnixListener
	path string
	own  fs.FileInfo
}

// listenUnix makes the socket in a folder of its own and then moves it to its
// place, so that it is never there without its mode, nor with nobody behind it.
func listenUnix(path string) (net.Listener, error) {
	if err := checkStale(path); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	l, err := bindUnix(folder)
	if err != nil {
		return nil, err
	}
	temporary := filepath.Join(folder, "s")
	info, err := os.Stat(temporary)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &unixListener{UnixListener: l, path: path, own: info}, nil
}

// bindUnix listens on "s" in a folder. It names the folder by a descriptor, as the
// folder's own path may be too long where the socket's final path is not.
func bindUnix(folder string) (*net.UnixListener, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	address := fmt.Sprintf("/proc/self/fd/%d/s", dir.Fd())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(filepath.Join(folder, "s"), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// checkStale refuses a path that is in use.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%w: there is a file that is no socket", kms.ErrExists)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%w: another process listens there", kms.ErrExists), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: it may be in use: %w", kms.ErrExists, err)
	}
	return nil
}

// Close stops listening and removes the socket.
func (l *unixListener) Close() error {
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.own) {
		_ = os.Remove(l.path) // a socket that is left over is replaced by the next process
	}
	return l.UnixListener.Close()
}

// drain is how long Serve waits for running calls when it ends.
const drain = 5 * time.Second

// Serve answers calls on a listener of Listen until ctx ends, waits for running
// calls for up to 5 s, and closes the listener. Its error is nil when ctx ended it.
func Serve(ctx context.Context, l net.Listener, h http.Handler, logger *zap.Logger) error {
	if logger == nil {
		logger = zap.NewNop()
	}
	errorLog, err := zap.NewStdLogAt(logger.Named("http"), zap.DebugLevel)
	if err != nil {
		return fmt.Errorf("service: serving: %w", err)
	}
	server := &http.Server{
		Handler: h, ErrorLog: errorLog, ConnContext: markLocal,
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("service: serving: %w", err)
	case <-ctx.Done():
	}
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := server.Shutdown(waiting); err != nil {
		_ = server.Close() // calls still run: they are cut
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("service: serving: %w", err)
	}
	return nil
}
