package sigv4

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// param is a decoded query parameter; the order and repetitions of the query are
// kept.
type param struct{ name, value string }

// parseQuery decodes a query string strictly. "+" is a space, as S3 reads it.
func parseQuery(raw string) ([]param, error) {
	if raw == "" {
		return nil, nil
	}
	params := make([]param, 0, 1+strings.Count(raw, "&"))
	for _, field := range strings.Split(raw, "&") {
		if field == "" {
			continue
		}
		name, value, _ := strings.Cut(field, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, &Error{Err: ErrQuery}
		}
		value, err = url.QueryUnescape(value)
		if err != nil {
			return nil, &Error{Err: ErrQuery}
		}
		params = append(params, param{name, value})
	}
	return params, nil
}

// isPresigned says whether the query claims to be signed with version 4.
func isPresigned(query []param) bool {
	for _, p := range query {
		switch p.name {
		case "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature":
			return true
		}
	}
	return false
}

// isV2 says whether the query is signed with version 2.
func isV2(query []param) bool {
	for _, p := range query {
		if p.name == "AWSAccessKeyId" {
			return true
		}
	}
	return false
}

// parsePresigned reads the X-Amz-* parameters of a presigned request.
func parsePresigned(query []param) (*claim, error) {
	c := &claim{presigned: true, query: make([]param, 0, len(query))}
	values := make(map[string]string)
	for _, p := range query {
		if strings.HasPrefix(p.name, "X-Amz-") {
			if _, again := values[p.name]; again {
				return nil, &Error{Err: ErrDuplicate, Query: true, Got: p.name}
			}
			values[p.name] = p.value
		}
		if p.name != "X-Amz-Signature" {
			c.query = append(c.query, p)
		}
	}
	if err := checkPresigned(values); err != nil {
		return nil, err
	}
	c.signature = values["X-Amz-Signature"]
	c.signedHeaders = strings.Split(values["X-Amz-SignedHeaders"], ";")
	c.queryHash = values["X-Amz-Content-Sha256"]
	if err := c.parseCredential(values["X-Amz-Credential"]); err != nil {
		return nil, err
	}
	if err := c.readExpires(values["X-Amz-Expires"]); err != nil {
		return nil, err
	}
	return c, c.readQueryDate(values["X-Amz-Date"])
}

// checkPresigned looks for a token, the algorithm, and that nothing is missing.
func checkPresigned(values map[string]string) error {
	if _, ok := values["X-Amz-Security-Token"]; ok {
		return &Error{Err: ErrToken, Query: true}
	}
	switch a := values["X-Amz-Algorithm"]; a {
	case algorithm, "":
	case algorithmECDSA:
		return &Error{Err: ErrAsymmetric, Query: true, Got: a}
	default:
		return &Error{Err: ErrScheme, Query: true, Got: a}
	}
	for _, name := range []string{
		"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature",
		"X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires",
	} {
		if values[name] == "" {
			return &Error{Err: ErrComponents, Query: true, Got: name}
		}
	}
	return nil
}

func (c *claim) readExpires(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil:
		return &Error{Err: ErrExpiresNumber, Query: true, Got: s}
	case n < 0:
		return &Error{Err: ErrExpiresNegative, Query: true, Got: s}
	case n > int64(MaxExpires/time.Second):
		return &Error{Err: ErrExpiresTooLarge, Query: true, Got: s}
	}
	c.expires = time.Duration(n) * time.Second
	return nil
}

func (c *claim) readQueryDate(s string) error {
	t, err := time.Parse(timeFormat, s)
	if err != nil {
		return &Error{Err: ErrNoDate, Query: true, Got: s}
	}
	c.time, c.timestamp = t, s
	return nil
}
