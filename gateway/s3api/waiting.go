package s3api

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"sync"
	"time"
)

// outcome is what a request that may take long is answered with.
type outcome struct {
	document any
	kek      string
	version  string // that was made; empty for none
	source   string // version that was read; empty for none
}

// patiently does what may take long. A client that has waited for a while is
// answered 200 and white space, as on S3: what follows may then still be an error,
// and the headers that only work knows are missing. Work must not write an answer.
func (c *call) patiently(work func() (outcome, error)) error {
	p := c.keepWaiting()
	defer p.end() // also where work panics
	o, err := work()
	if waited := p.end(); waited {
		return c.finishLate(o.document, err)
	}
	if err != nil {
		return err
	}
	h := c.w.Header()
	c.setEncryption(o.kek)
	setMade(h, o.version)
	setIf(h, "X-Amz-Copy-Source-Version-Id", o.source)
	return c.writeXML(http.StatusOK, o.document)
}

// setIf sets a header that has a value.
func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// finishLate ends an answer of which the status is out already.
func (c *call) finishLate(document any, err error) error {
	if err != nil {
		f := c.faultOf(err)
		c.code, c.cause, c.w.alarm = f.code, err, f.alarm
		document = c.document(f)
	}
	body, err := marshal(document)
	if err != nil {
		return err
	}
	_, _ = c.w.Write(bytes.TrimPrefix(body, []byte(xml.Header)))
	return nil
}

// waiting writes signs of life in a goroutine of its own until end is called; only
// then may anybody else write.
type waiting struct {
	c     *call
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
	begun bool
}

func (c *call) keepWaiting() *waiting {
	w := &waiting{c: c, stop: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *waiting) run() {
	defer close(w.done)
	ticks := time.NewTicker(w.c.patience)
	defer ticks.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ticks.C:
			w.sign()
		}
	}
}

func (w *waiting) sign() {
	text := " "
	if !w.begun {
		w.begun, text = true, xml.Header
		w.c.w.Header().Set("Content-Type", "application/xml")
		w.c.setEncryption(w.c.bucket.KEK)
	}
	_, _ = io.WriteString(w.c.w, text)
	_ = w.c.w.rc.Flush()
}

// end says whether an answer was begun. It may be called again.
func (w *waiting) end() bool {
	w.once.Do(func() { close(w.stop) })
	<-w.done
	return w.begun
}
