package sigv4

import (
	"net/http"
	"strings"
	"time"
)

// parseHeader reads the Authorization header and the request's time.
func parseHeader(r *http.Request, query []param) (*claim, error) {
	value := strings.TrimSpace(r.Header.Get("Authorization"))
	scheme, rest, ok := strings.Cut(value, " ")
	if !ok {
		return nil, &Error{Err: ErrHeaderForm, Got: value}
	}
	switch scheme {
	case algorithm:
	case "AWS":
		return nil, &Error{Err: ErrVersion2}
	case algorithmECDSA:
		return nil, &Error{Err: ErrAsymmetric, Got: scheme}
	default:
		return nil, &Error{Err: ErrScheme, Got: scheme}
	}
	c := &claim{query: query}
	if err := c.parseComponents(rest); err != nil {
		return nil, err
	}
	return c, c.readDate(r.Header)
}

// parseComponents reads "Credential=..., SignedHeaders=..., Signature=...".
func (c *claim) parseComponents(s string) error {
	parts := strings.Split(s, ",")
	if len(parts) != 3 {
		return &Error{Err: ErrComponents}
	}
	values := make(map[string]string, len(parts))
	for _, part := range parts {
		part = strings.TrimSpace(part)
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return &Error{Err: ErrComponent, Got: part}
		}
		values[name] = value
	}
	for _, need := range []struct {
		name string
		err  error
	}{
		{"Credential", ErrNoCredential},
		{"SignedHeaders", ErrNoSignedHeaders},
		{"Signature", ErrNoSignature},
	} {
		if values[need.name] == "" {
			return &Error{Err: need.err}
		}
	}
	c.signedHeaders = strings.Split(values["SignedHeaders"], ";")
	c.signature = values["Signature"]
	return c.parseCredential(values["Credential"])
}

// parseCredential reads "key/yyyymmdd/region/service/aws4_request".
func (c *claim) parseCredential(s string) error {
	parts := strings.Split(s, "/")
	if len(parts) != 5 || parts[0] == "" {
		return &Error{Err: ErrCredential, Query: c.presigned, Form: c.form, Credential: s, Got: s}
	}
	c.scope = Scope{AccessKey: parts[0], Date: parts[1], Region: parts[2], Service: parts[3]}
	c.terminator, c.credential = parts[4], s
	return nil
}

// readDate takes X-Amz-Date, or Date where there is none.
func (c *claim) readDate(h http.Header) error {
	value, present := h["X-Amz-Date"]
	if !present {
		return c.readHTTPDate(h.Get("Date"))
	}
	t, err := time.Parse(timeFormat, value[0])
	if err != nil {
		return &Error{Err: ErrNoDate}
	}
	c.time, c.timestamp = t, value[0]
	return nil
}

func (c *claim) readHTTPDate(value string) error {
	t, err := http.ParseTime(value)
	if err != nil {
		if t, err = time.Parse(timeFormat, value); err != nil {
			return &Error{Err: ErrNoDate}
		}
	}
	c.time, c.timestamp = t, t.UTC().Format(timeFormat)
	return nil
}
