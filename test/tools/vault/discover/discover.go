// Package discover stands in for github.com/hashicorp/go-discover, which finds peers
// at clouds and pulls the libraries of a dozen of them in: a third of all that there
// would be to build. This server has no peers. What Vault calls of it is here, and
// finds nothing.
package discover

import (
	"errors"
	"log"
)

var errNone = errors.New("this server finds no peers")

// Provider would know one cloud.
type Provider interface {
	Addrs(args map[string]string, l *log.Logger) ([]string, error)
	Help() string
}

// Providers by name: none.
var Providers = map[string]Provider{}

// Discover would find peers.
type Discover struct{}

// Option would configure Discover.
type Option func(*Discover) error

// New takes any options.
func New(...Option) (*Discover, error) { return &Discover{}, nil }

// WithProviders does nothing.
func WithProviders(map[string]Provider) Option { return func(*Discover) error { return nil } }

// Addrs fails.
func (*Discover) Addrs(string, *log.Logger) ([]string, error) { return nil, errNone }

// Config would be a cloud's settings.
type Config map[string]string

// Parse fails.
func Parse(string) (Config, error) { return nil, errNone }

func (Config) String() string { return "" }
