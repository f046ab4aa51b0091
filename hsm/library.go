package hsm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Library is a PKCS#11 module, loaded and initialised. C_Initialize counts for the
// whole process, so a process has one Library per module and shares it among the
// tokens of that module; a second Load of the same module is ErrInUse.
//
// A generation is the time between two C_Initialize calls. Every handle belongs to
// one, and no handle of an older one is ever passed to the module again.
//
// All methods may run concurrently.
type Library struct {
	path string
	c    cryptoki

	renewing sync.Mutex // held while the module is initialised anew

	mu         sync.Mutex
	generation uint64
	lost       bool          // the generation is over; nothing may enter
	closed     bool          // Close was called
	running    int           // calls inside the module
	quiet      chan struct{} // closed when running falls to 0; nil when nobody waits
}

// errStale: the module was initialised anew, or is about to be. Nothing was called.
var errStale = errors.New("handles of an earlier login")

// Load maps the module at path, a file or a name that the dynamic linker finds,
// and initialises it. The caller closes the Library after its tokens. Errors:
// ErrModule, ErrInUse, ErrUnavailable.
func Load(path string) (*Library, error) { return LoadWith(path, "") }

// LoadWith is Load with a text that the module is initialised with: see
// Config.Parameters.
func LoadWith(path, parameters string) (*Library, error) {
	if err := readable(path); err != nil {
		return nil, fmt.Errorf("hsm: loading module %q: %w: %w", path, ErrModule, err)
	}
	c, err := load(path, parameters)
	if err != nil {
		return nil, fmt.Errorf("hsm: loading module %q: %w: %w", path, ErrModule, err)
	}
	return start(path, c)
}

// loadOrLater is Load, but a module that does not start now, since its device is
// away, is started when it is first needed.
func loadOrLater(path, parameters string) (*Library, error) {
	lib, err := LoadWith(path, parameters)
	if !errors.Is(err, ErrUnavailable) {
		return lib, err
	}
	c, err := load(path, parameters)
	if err != nil {
		return nil, fmt.Errorf("hsm: loading module %q: %w: %w", path, ErrModule, err)
	}
	return &Library{path: path, c: c, generation: 1, lost: true}, nil
}

// start initialises a module that is mapped already.
func start(path string, c cryptoki) (*Library, error) {
	err := c.initialize()
	switch {
	case err == nil:
		return &Library{path: path, c: c, generation: 1}, nil
	case curable(err):
		return nil, fmt.Errorf("hsm: initialising module %q%s: %w: %s: %w", path, settings(), ErrUnavailable, noStore, err)
	case hasCode(err, ckrCryptokiInitialized):
		return nil, fmt.Errorf("hsm: initialising module %q: %w: share one Library among its tokens: %w", path, ErrInUse, err)
	}
	return nil, fmt.Errorf("hsm: initialising module %q%s: %w: %w", path, settings(), ErrModule, err)
}

// noStore is what a module means that starts with a general or a device error.
const noStore = "the folder or the device of its tokens is not there, or not readable"

// readable finds the plain reasons for which a module does not load, because the
// dynamic linker's words for them are worse.
func readable(path string) error {
	if path == "" {
		return errors.New("no module is configured")
	}
	if !strings.Contains(path, "/") {
		return nil // the linker searches for it
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// settings names the file by which SoftHSM finds its tokens: the usual reason for
// which they are not there.
func settings() string {
	if path := os.Getenv("SOFTHSM2_CONF"); path != "" {
		return fmt.Sprintf(" (SOFTHSM2_CONF=%q)", path)
	}
	return ""
}

// enter begins a call with handles of the given generation, or returns errStale or
// ErrClosed. After nil the caller must call leave.
func (l *Library) enter(generation uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case l.lost || generation != l.generation:
		return errStale
	}
	l.running++
	return nil
}

func (l *Library) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	if l.running == 0 && l.quiet != nil {
		close(l.quiet)
		l.quiet = nil
	}
}

// lives tells whether handles of a generation may still be used.
func (l *Library) lives(generation uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lost && !l.closed && generation == l.generation
}

// lose ends a generation: the device answers nothing any more before the module
// has been initialised anew.
func (l *Library) lose(generation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if generation == l.generation {
		l.lost = true
	}
}

// ready returns the generation to log in to, and initialises the module anew when
// the last one was lost. It waits at most patience for running calls to end.
func (l *Library) ready(patience time.Duration) (uint64, error) {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	generation, lost, err := l.state()
	if err != nil || !lost {
		return generation, err
	}
	if err := l.drain(patience); err != nil {
		return 0, err
	}
	finalized := l.c.finalize() // tells nothing by itself: C_Initialize is the judge
	if err := l.c.initialize(); err != nil {
		return 0, fmt.Errorf("%w: initialising module %q anew%s: %s: %w",
			ErrUnavailable, l.path, settings(), noStore, errors.Join(err, finalized))
	}
	return l.renewed(), nil
}

func (l *Library) state() (generation uint64, lost bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, false, ErrClosed
	}
	return l.generation, l.lost, nil
}

func (l *Library) renewed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation++
	l.lost = false
	return l.generation
}

// drain waits until no call is inside the module. The module must be lost or closed.
func (l *Library) drain(patience time.Duration) error {
	quiet := l.quieten()
	if quiet == nil {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-quiet:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: a call of module %q has not returned for %v; if it never does, restart this process",
			ErrUnavailable, l.path, patience)
	}
}

// quieten returns a channel that is closed when nothing runs, or nil when nothing does now.
func (l *Library) quieten() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == 0 {
		return nil
	}
	if l.quiet == nil {
		l.quiet = make(chan struct{})
	}
	return l.quiet
}

// Close finalises the module for the whole process, after waiting up to ten seconds
// for running calls. Its tokens must be closed before. A second Close does nothing.
func (l *Library) Close() error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	if err := l.drain(defaultDeadline); err != nil {
		return fmt.Errorf("hsm: closing: %w", err)
	}
	if err := l.c.finalize(); err != nil && !hasCode(err, ckrCryptokiNotInitialized) {
		return fmt.Errorf("hsm: finalising module %q: %w", l.path, err)
	}
	return nil
}
