package probe

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"chatelaine/backends"
)

// racing is the size of bodies that race, in bytes: enough to be under way at once.
const racing = 100_000

// noETag is that of no object.
const noETag = "00000000000000000000000000000000"

func never() backends.Conditions { return backends.Conditions{IfNoneMatch: []string{"*"}} }

func only(etag string) backends.Conditions { return backends.Conditions{IfMatch: []string{etag}} }

func (p *prober) conditionTrials() []trial {
	const locks = ": NotImplemented; locks of Terraform, Iceberg and Delta need it"
	return []trial{
		{name: "if-none-match", relied: true, refuses: "If-None-Match on PutObject" + locks, try: p.ifNoneMatch},
		{name: "if-none-match-atomic", relied: true, refuses: "If-None-Match on PutObject" + locks, try: p.oneWins},
		{name: "if-match", relied: true, refuses: "If-Match on PutObject" + locks, try: p.ifMatch},
		{name: "if-match-delete", relied: true, refuses: "If-Match on DeleteObject: NotImplemented", try: p.ifMatchDelete},
		{name: "conditional-reads", refuses: "nothing: the gateway checks conditions of reads on the answer (dialect)", try: p.conditionalReads},
	}
}

// condition tries a write whose condition does not hold, which must not come to be, and
// one whose condition holds.
func condition(fails, holds func() error, untouched func() string) (Result, string) {
	err := fails()
	switch {
	case err == nil:
		return Ignored, "it was done although the condition did not hold"
	case errors.Is(err, backends.ErrUnsupported):
		return No, ""
	case !errors.Is(err, backends.ErrPrecondition) && !errors.Is(err, backends.ErrConflict) && !errors.Is(err, backends.ErrNotFound):
		return No, err.Error()
	}
	if wrong := untouched(); wrong != "" {
		return Ignored, "it reported a failure, and " + wrong
	}
	if err := holds(); err != nil {
		return No, "it fails although the condition holds: " + err.Error()
	}
	return Yes, ""
}

func (p *prober) putIf(key string, data []byte, c backends.Conditions) error {
	_, err := p.Store.Put(p.ctx, p.id(key), body(data), &backends.PutOptions{Conditions: c})
	return err
}

func (p *prober) ifNoneMatch() (Result, string) {
	if _, err := p.put("created", []byte("first")); err != nil {
		return failed("putting", err)
	}
	return condition(
		func() error { return p.putIf("created", []byte("second"), never()) },
		func() error { return p.putIf("created-anew", []byte("first"), never()) },
		func() string { return p.holds("created", []byte("first")) },
	)
}

func (p *prober) ifMatch() (Result, string) {
	w, err := p.put("swapped", []byte("first"))
	if err != nil {
		return failed("putting", err)
	}
	return condition(
		func() error { return p.putIf("swapped", []byte("second"), only(noETag)) },
		func() error { return p.putIf("swapped", []byte("second"), only(w.ETag)) },
		func() string { return p.holds("swapped", []byte("first")) },
	)
}

// oneWins has many create one object at once, several times.
func (p *prober) oneWins() (Result, string) {
	const rounds, writers = 5, 8
	for round := range rounds {
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				if p.putIf(fmt.Sprint("race-", round), pattern(racing, byte(i)), never()) == nil {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		switch n := won.Load(); {
		case n > 1:
			return Ignored, fmt.Sprintf("%d of %d who created one object at once were told that they did", n, writers)
		case n == 0:
			return No, fmt.Sprintf("none of %d at once could create it", writers)
		}
	}
	return Yes, fmt.Sprintf("one of %d at once, in %d rounds", writers, rounds)
}

func (p *prober) ifMatchDelete() (Result, string) {
	w, err := p.put("deleted", []byte("first"))
	if err != nil {
		return failed("putting", err)
	}
	remove := func(etag string) error {
		_, err := p.Store.Delete(p.ctx, p.id("deleted"), &backends.DeleteOptions{Conditions: only(etag)})
		return err
	}
	result, detail := condition(
		func() error { return remove(noETag) }, func() error { return remove(w.ETag) },
		func() string { return p.holds("deleted", []byte("first")) },
	)
	if result == Yes && remove(w.ETag) == nil {
		return Ignored, "a delete of what has gone reports success"
	}
	return result, detail
}

func (p *prober) conditionalReads() (Result, string) {
	w, err := p.put("read", []byte("x"))
	if err != nil {
		return failed("putting", err)
	}
	head := func(c backends.Conditions) error {
		_, err := p.Store.Head(p.ctx, p.id("read"), &backends.GetOptions{Conditions: c})
		return err
	}
	var not *backends.NotModified
	if err := head(backends.Conditions{IfNoneMatch: []string{w.ETag}}); !errors.As(err, &not) || not.ETag != w.ETag || not.Modified.IsZero() {
		return No, "304 without the ETag and the time"
	}
	if err := head(never()); !errors.Is(err, backends.ErrNotModified) {
		return No, "If-None-Match: * is not honoured"
	}
	if err := head(only(noETag)); !errors.Is(err, backends.ErrPrecondition) {
		return No, "If-Match is not honoured"
	}
	return Yes, ""
}
