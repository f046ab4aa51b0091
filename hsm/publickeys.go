package hsm

import (
	"crypto/rsa"
	"sync"
)

// publicKeys are the public halves of the RSA keys that a token was seen to have.
// They outlive its logins, so that encryption does.
type publicKeys struct {
	mu    sync.Mutex
	known map[Key]*rsa.PublicKey
}

// of returns the public half of a key, or nil when it must be looked up.
func (p *publicKeys) of(key Key) *rsa.PublicKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[key]
}

// remember keeps a public half. nil, which keys of other mechanisms have, does nothing.
func (p *publicKeys) remember(key Key, public *rsa.PublicKey) {
	if public == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[Key]*rsa.PublicKey{}
	}
	p.known[key] = public
}

// forgetLabel drops the key of a label, for all mechanisms.
func (p *publicKeys) forgetLabel(label string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.known {
		if key.Label == label {
			delete(p.known, key)
		}
	}
}
