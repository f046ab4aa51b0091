package service

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// Access lists who may call over mutual TLS, by the client certificate's names: its
// common name, a DNS name or URI of its subject alternative names, or "ou:" and an
// organizational unit. Names are compared as they are.
type Access struct {
	Gateways []string // GatewayService
	Admins   []string // AdminService
}

// peer is who calls. The zero peer may do nothing.
type peer struct {
	name           string
	gateway, admin bool
}

// String names the peer for people.
func (p peer) String() string {
	if p.name == "" {
		return "no client certificate"
	}
	return fmt.Sprintf("peer %q", p.name)
}

// may says whether the peer may call the procedure at a path.
func (p peer) may(path string) bool {
	switch {
	case strings.HasPrefix(path, "/"+kmsv1connect.GatewayServiceName+"/"):
		return p.gateway
	case strings.HasPrefix(path, "/"+kmsv1connect.AdminServiceName+"/"):
		return p.admin
	default:
		return false
	}
}

// identify finds out who sent a request. Only Serve marks a connection as that of
// a Unix socket, so a handler on any other plain connection lets nobody in.
func (a Access) identify(r *http.Request) peer {
	if r.Context().Value(localKey{}) != nil {
		return peer{name: "local", gateway: true, admin: true}
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return peer{}
	}
	names := namesOf(r.TLS.VerifiedChains[0][0])
	return peer{name: strings.Join(names, ","), gateway: anyOf(names, a.Gateways), admin: anyOf(names, a.Admins)}
}

// namesOf are the names by which a certificate can be listed. A common name that
// looks like a unit is none.
func namesOf(c *x509.Certificate) []string {
	names := append([]string{c.Subject.CommonName}, c.DNSNames...)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" || strings.HasPrefix(name, "ou:") })
	for _, unit := range c.Subject.OrganizationalUnit {
		names = append(names, "ou:"+unit)
	}
	return names
}

func anyOf(names, allowed []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(allowed, name) })
}

type (
	localKey struct{} // connection of a Unix socket
	peerKey  struct{}
)

// markLocal is an http.Server's ConnContext.
func markLocal(ctx context.Context, c net.Conn) context.Context {
	if _, ok := c.(*net.UnixConn); ok {
		return context.WithValue(ctx, localKey{}, true)
	}
	return ctx
}

func withPeer(ctx context.Context, p peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(ctx context.Context) peer {
	p, _ := ctx.Value(peerKey{}).(peer)
	return p
}
