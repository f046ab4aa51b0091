package hsm

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// attachment is one login to a token: the session that stays, the pool, and the
// keys that were found and tested. All its handles die together.
type attachment struct {
	lib        *Library
	generation uint64
	slot       uint
	info       tokenInfo
	anchor     sessionHandle // logged in, and used for nothing but staying so
	pool       *pool
	public     *publicKeys // the Token's
	profiles   profiles
	readOnly   bool        // all sessions are
	stale      atomic.Bool // the login is gone though the module lives

	mu   sync.Mutex
	keys map[Key]*knownKey // nil values: keys whose handle died
	test sync.Mutex        // one key is looked up at a time
}

// worker is an attachment with one of its sessions, for one operation.
type worker struct {
	*attachment
	c       cryptoki
	session sessionHandle
}

func (a *attachment) lives() bool { return !a.stale.Load() && a.lib.lives(a.generation) }

// serve runs f with a session of the pool. The caller holds a permit.
func (a *attachment) serve(f func(*worker) error) error {
	if err := a.lib.enter(a.generation); err != nil {
		return err
	}
	defer a.lib.leave()
	w := &worker{attachment: a, c: a.lib.c}
	opened, err := a.session(w)
	if err == nil {
		err = f(w)
	}
	a.settle(w, opened, err)
	return err
}

// session gives the worker an idle session or a new one, and tells whether there is one.
func (a *attachment) session(w *worker) (bool, error) {
	if s, ok := a.pool.take(); ok {
		w.session = s
		return true, nil
	}
	s, err := w.c.openSession(a.slot, a.readOnly)
	switch {
	case hasCode(err, ckrSessionCount) && a.pool.shrink():
		return false, fmt.Errorf("%w: %w", errFull, err)
	case hasCode(err, ckrSessionCount):
		return false, fmt.Errorf("the token has no session left: set a smaller number of sessions: %w", err)
	}
	w.session = s
	return err == nil, err
}

// settle decides what an error means for the session, the login and the module.
// It runs before the call leaves the module, so the handles are still its own.
func (a *attachment) settle(w *worker, opened bool, err error) {
	fault := diagnose(err)
	healthy := fault == faultNone || fault == faultData
	if opened && (!healthy || !a.pool.keep(w.session)) {
		_ = w.c.closeSession(w.session) // nothing is left to do with it either way
	}
	switch fault {
	case faultSession:
		a.stale.Store(true)
	case faultDevice, faultAmbiguous:
		a.lib.lose(a.generation)
	}
}

// retire closes the sessions, if the module still knows them. Closing a token's
// last session logs out; C_Logout is never called, since it would kill the key
// handles of everybody else in the process.
func (a *attachment) retire() {
	idle := a.pool.shutDown()
	if a.lib.enter(a.generation) != nil {
		return
	}
	defer a.lib.leave()
	for _, s := range append(idle, a.anchor) {
		_ = a.lib.c.closeSession(s)
	}
}

// known returns a key found earlier in this login, or nil when its handle has died
// since. seen tells that it was found at all.
func (a *attachment) known(key Key) (k *knownKey, seen bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, seen = a.keys[key]
	return k, seen
}

func (a *attachment) remember(key Key, k *knownKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[key] = k
}

// forget drops a key that was destroyed: that it is not found any more is no sign of
// a lost token.
func (a *attachment) forget(key Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for known := range a.keys {
		if known.Label == key.Label {
			delete(a.keys, known)
		}
	}
	a.public.forgetLabel(key.Label)
}

// anyKey returns one of the known keys, or nil.
func (a *attachment) anyKey() *knownKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.keys {
		if k != nil {
			return k
		}
	}
	return nil
}
