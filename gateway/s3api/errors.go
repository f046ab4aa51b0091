package s3api

import (
	"encoding/xml"
	"errors"
	"net/http"
)

// faultOf finds out what to tell the client about an error. What no row of the
// table knows is an internal error, whose cause goes to the log alone.
func (c *call) faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	for _, row := range c.causes {
		if errors.Is(err, row.err) {
			return row.fault(c, err)
		}
	}
	return &fault{
		status: http.StatusInternalServerError, code: "InternalError", alarm: true,
		message: "We encountered an internal error, please try again.",
	}
}

// errorDocument is S3's Error element.
type errorDocument struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	Fields    []field
	Resource  string
	RequestID string `xml:"RequestId"`
	HostID    string `xml:"HostId"`
}

// fail answers with an error. Once the first byte of a body is out, only a cut
// connection tells the client that what it has is not all.
func (c *call) fail(err error) {
	f := c.faultOf(err)
	c.code, c.cause = f.code, err
	c.w.alarm = f.alarm
	if c.w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	if c.r.ContentLength != 0 {
		c.body.abandon()
	}
	h := c.w.Header()
	for name, value := range f.header {
		h.Set(name, value)
	}
	if f.retry {
		h.Set("Retry-After", "1")
	}
	if c.r.Method == http.MethodHead || f.status == http.StatusNotModified {
		c.w.WriteHeader(f.status)
		return
	}
	if err := c.writeXML(f.status, c.document(f)); err != nil {
		c.cause = errors.Join(c.cause, err)
	}
}

func (c *call) document(f *fault) errorDocument {
	return errorDocument{
		Code: f.code, Message: f.message, Fields: f.fields,
		Resource: c.r.URL.Path, RequestID: c.id, HostID: c.hostID,
	}
}
