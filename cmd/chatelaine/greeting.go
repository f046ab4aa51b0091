package main

import (
	"fmt"
	"io"
	"net"
	"strings"

	"chatelaine/gateway/config"
)

// greeting is what a person reads once everything serves.
type greeting struct {
	options upOptions
	config  config.Config
	home    *home
	user    credentials
	address string // of S3, as bound
}

// endpoint is the URL for a client on this machine.
func (g greeting) endpoint() string {
	scheme := "http"
	if g.config.TLS != nil {
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(g.address)
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

func (g greeting) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `
Chatelaine %s serves S3.

  endpoint    %s
  region      %s
  access key  %s
  secret      %s

Paste into another shell:

  export AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s AWS_DEFAULT_REGION=%s
  aws --endpoint-url %s s3 mb s3://demo
  aws --endpoint-url %s s3 cp README.md s3://demo/
  aws --endpoint-url %s s3 ls s3://demo

`, version, g.endpoint(), g.config.Region, g.user.id, g.user.secret(),
		quote(g.user.id), quote(g.user.secret()), quote(g.config.Region), g.endpoint(), g.endpoint(), g.endpoint())
	g.places(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// places says where things lie, and what must not be taken for safe.
func (g greeting) places(b *strings.Builder) {
	fmt.Fprintf(b, "  sealed objects    %s\n", g.config.Backends[g.config.DefaultBackend].URL)
	if g.options.kek == "softkey" {
		fmt.Fprintf(b, "  keys              %s\n", g.home.softKey())
	} else {
		fmt.Fprintf(b, "  keys              SoftHSM token in %s\n", g.home.token())
	}
	fmt.Fprintf(b, "  state, decisions  %s\n\n", g.home.path("home"))
	kind := "SoftHSM keeps its token, and its PIN, in files"
	if g.options.kek == "softkey" {
		kind = "softkey keeps keys in plain files"
	}
	fmt.Fprintf(b, "%s: this is for development. Ctrl-C ends it; nothing is lost.\n\n", kind)
}

// quote makes a word of a shell, where it is not one already.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("-_./+=:@%,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
