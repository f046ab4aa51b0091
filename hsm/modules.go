package hsm

import (
	"errors"
	"fmt"
	"sync"
)

// Modules loads each module of a process once, however many tokens of it are opened
// one after the other: C_Initialize counts for the process, and a second Load of a
// module is ErrInUse. The zero value is ready. All methods may run concurrently.
type Modules struct {
	mu     sync.Mutex
	loaded map[string]loaded // by path
}

// loaded is a module, and what it was initialised with.
type loaded struct {
	*Library
	parameters string
}

// loader is LoadWith or loadOrLater.
type loader func(path, parameters string) (*Library, error)

// library returns a module, and loads it at the first time. ErrInvalid when it was
// initialised with other parameters.
func (m *Modules) library(path, parameters string, load loader) (*Library, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if there, ok := m.loaded[path]; ok {
		if there.parameters != parameters {
			return nil, fmt.Errorf("%w: module %q is initialised once, and with other parameters already", ErrInvalid, path)
		}
		return there.Library, nil
	}
	lib, err := load(path, parameters)
	if err != nil {
		return nil, err
	}
	if m.loaded == nil {
		m.loaded = map[string]loaded{}
	}
	m.loaded[path] = loaded{lib, parameters}
	return lib, nil
}

// Close closes all modules. Their tokens must be closed before. A second Close does
// nothing.
func (m *Modules) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var problems []error
	for _, lib := range m.loaded {
		problems = append(problems, lib.Library.Close())
	}
	return errors.Join(problems...)
}

// library is the module that a Token is to use, and whether the Token closes it.
func (c Config) library() (lib *Library, owned bool, err error) {
	switch {
	case c.Library != nil:
		return c.Library, false, nil
	case c.Modules != nil:
		lib, err = c.Modules.library(c.Module, c.Parameters, LoadWith)
	default:
		lib, err = LoadWith(c.Module, c.Parameters)
	}
	if err != nil {
		return nil, false, fmt.Errorf("hsm: opening token %q: %w", c.Token, unreachable(c.Token, err))
	}
	return lib, c.Modules == nil, nil
}
