package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// home is the data folder of `chatelaine up`. Only cloud/ may be given away; the
// rest stays at home.
//
//	cloud/             what the foreign cloud would hold (the default backend)
//	home/token/        the SoftHSM token, its PINs and softhsm2.conf
//	home/softkey/      with --kek softkey, the KEKs instead
//	home/kms/          the KMS's state: etcd
//	home/access.log    every decision
//	home/run/          sockets and generated configuration, made anew at each start
//	home/lock          held while it runs
type home struct {
	root string
	// sockets is home/run, or a private folder where that path is too long for a
	// socket's name.
	sockets string
	lock    *os.File
}

// longestSocket is the room that Linux has for a socket's path, less a byte.
const longestSocket = 107

// socketNames are all that sockets() must have room for.
const longestSocketName = "notify.sock"

// openHome makes the folders that are missing and takes the lock. The caller calls
// Close.
func openHome(dir string) (*home, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the data folder: %w", err)
	}
	h := &home{root: root}
	for _, folder := range []string{root, h.path("home"), h.run()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("opening the data folder: %w", err)
		}
	}
	if err := os.Chmod(h.path("home"), 0o700); err != nil { //nolint:gosec // G302: a folder needs the x
		return nil, fmt.Errorf("opening the data folder: %w", err)
	}
	if err := h.takeLock(); err != nil {
		return nil, err
	}
	if err := h.findSockets(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *home) path(elements ...string) string {
	return filepath.Join(append([]string{h.root}, elements...)...)
}

func (h *home) cloud() string     { return h.path("cloud") }
func (h *home) token() string     { return h.path("home", "token") }
func (h *home) softKey() string   { return h.path("home", "softkey") }
func (h *home) state() string     { return h.path("home", "kms") }
func (h *home) accessLog() string { return h.path("home", "access.log") }
func (h *home) run() string       { return h.path("home", "run") }
func (h *home) kmsSocket() string { return filepath.Join(h.sockets, "kms.sock") }
func (h *home) notify() string    { return filepath.Join(h.sockets, longestSocketName) }

// takeLock keeps a second `up` out. The kernel lets go of the lock when the process
// ends, however it ends.
func (h *home) takeLock() error {
	name := h.path("home", "lock")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening the data folder: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("another `chatelaine up` is using the data folder %q: stop it, or choose another --data", h.root)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	h.lock = file
	return nil
}

func (h *home) findSockets() error {
	h.sockets = h.run()
	if len(h.notify()) <= longestSocket {
		return nil
	}
	private, err := os.MkdirTemp("", "chatelaine-")
	if err != nil {
		return fmt.Errorf("making a folder for sockets: %w", err)
	}
	h.sockets = private
	return nil
}

// Close lets another process have the folder.
func (h *home) Close() error {
	if h.sockets != "" && h.sockets != h.run() {
		_ = os.RemoveAll(h.sockets)
	}
	return h.lock.Close()
}

// hasState says whether the KMS has ever kept anything here.
func (h *home) hasState() (bool, error) { return notEmpty(h.state()) }

// notEmpty says whether a folder is there and has something in it.
func notEmpty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking into a folder: %w", err)
	}
	return len(entries) > 0, nil
}
