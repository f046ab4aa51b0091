package servers

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Etcd is a cluster of etcd members in this process, which listen on loopback.
type Etcd struct {
	Endpoints []string // of all members

	members []*etcdMember
}

type etcdMember struct {
	config *embed.Config
	server *embed.Etcd // nil while it is stopped
}

// NewEtcd starts a cluster that ends with the test.
func NewEtcd(t *testing.T, members int) *Etcd {
	t.Helper()
	e := &Etcd{}
	var all []string
	dir := t.TempDir()
	for i := range members {
		m := &etcdMember{config: embed.NewConfig()}
		client, peer := etcdURL(t), etcdURL(t)
		m.config.Name = fmt.Sprintf("member-%d", i)
		m.config.Dir = filepath.Join(dir, m.config.Name)
		m.config.ListenClientUrls, m.config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		m.config.ListenPeerUrls, m.config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		m.config.TickMs, m.config.ElectionMs = 100, 1000 // etcd's own defaults
		m.config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		all = append(all, m.config.Name+"="+peer.String())
		e.members, e.Endpoints = append(e.members, m), append(e.Endpoints, client.String())
	}
	for _, m := range e.members {
		m.config.InitialCluster = strings.Join(all, ",")
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.stop)
	}
	for _, m := range e.members {
		<-m.server.Server.ReadyNotify()
	}
	return e
}

func etcdURL(t *testing.T) url.URL {
	t.Helper()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return url.URL{Scheme: "http", Host: address}
}

// Stop ends a member, by number, without a word to the others.
func (e *Etcd) Stop(member int) { e.members[member].stop() }

// Start starts a member that was stopped, on the data that it has, and waits until it
// is one of the cluster again.
func (e *Etcd) Start(member int) error {
	m := e.members[member]
	if err := m.start(); err != nil {
		return err
	}
	<-m.server.Server.ReadyNotify()
	return nil
}

func (m *etcdMember) start() error {
	server, err := embed.StartEtcd(m.config)
	if err != nil {
		return fmt.Errorf("servers: starting etcd %s: %w", m.config.Name, err)
	}
	m.server = server
	return nil
}

func (m *etcdMember) stop() {
	if m.server != nil {
		m.server.Server.HardStop() // it does not hand its leadership over: it is gone
		m.server.Close()
		m.server = nil
	}
}
