package service

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// Access lists who may call over mutual TLS, by the client certificate's names: its
// common name, a DNS name or URI of its subject alternative names, or "ou:" and an
// organizational unit. Names are compared as they are.
type Access struct {
	Gateways []string // GatewayService, PolicyFeed and MirrorFeed
	Admins   []string // AdminService, KeyService and all others for administrators
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
	service, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case service == kmsv1connect.GatewayServiceName, service == kmsv1connect.PolicyFeedName,
		service == kmsv1connect.MirrorFeedName, service == kmsv1connect.LedgerFeedName:
		return p.gateway
	case slices.Contains(adminServices(), service):
		return p.admin
	default:
		return false
	}
}

// adminServices are the services for administrators alone.
func adminServices() []string {
	return []string{
		kmsv1connect.AdminServiceName,
		kmsv1connect.KeyServiceName,
		kmsv1connect.UserServiceName,
		kmsv1connect.JobServiceName,
		kmsv1connect.BucketServiceName,
		kmsv1connect.PolicyServiceName,
		kmsv1connect.BlockServiceName,
		kmsv1connect.ApprovalServiceName,
		kmsv1connect.RecoveryServiceName,
	}
}

// identify finds out who sent a request. Only Serve marks a connection as that of
// a Unix socket, so a handler on any other plain connection lets nobody in.
func (a Access) identify(r *http.Request) peer {
	if user, ok := r.Context().Value(localKey{}).(func() (string, error)); ok {
		return localPeer(user())
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return peer{}
	}
	names := namesOf(r.TLS.VerifiedChains[0][0])
	return peer{name: strings.Join(names, ","), gateway: anyOf(names, a.Gateways), admin: anyOf(names, a.Admins)}
}

// localPeer is who is at the other end of a Unix socket, by the kernel's word. Whom
// it cannot name may do nothing: an operation needs an actor.
func localPeer(user string, err error) peer {
	if err != nil {
		return peer{}
	}
	return peer{name: "unix:" + user, gateway: true, admin: true}
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
	localKey struct{} // connection of a Unix socket; its value names the user
	peerKey  struct{}
)

// markLocal is an http.Server's ConnContext.
func markLocal(ctx context.Context, c net.Conn) context.Context {
	if conn, ok := c.(*net.UnixConn); ok {
		// Once a connection, and not before the first request: the name may come from
		// a directory server.
		return context.WithValue(ctx, localKey{}, sync.OnceValues(func() (string, error) { return userOf(conn) }))
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
