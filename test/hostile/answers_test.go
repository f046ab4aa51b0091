package hostile

import (
	"errors"
	"fmt"
	"io"

	"chatelaine/backends"
)

// reply makes a kind that changes how a Get is answered.
func replies(name string, change func(g *gen) (detail string, f func(*reply))) kind {
	return kind{name: "answer: " + name, make: func(g *gen) *attack {
		detail, f := change(g)
		return &attack{detail: detail, reply: f}
	}}
}

// answers are attacks on answers about an object that lies there as it should.
func answers() []kind {
	return []kind{
		replies("another range, said as asked", func(g *gen) (string, func(*reply)) {
			by := g.either(200_000)
			whole := g.s.now.stored.bytes
			return fmt.Sprint("by ", by), func(r *reply) { r.body = whole.cut(max(0, r.asked.Offset+by), r.asked.Length) }
		}),
		replies("another range", func(g *gen) (string, func(*reply)) {
			off, n := g.within(g.s.now.stored.bytes.size()+1), g.near(200_000)
			whole := g.s.now.stored.bytes
			return fmt.Sprintf("%d bytes from %d", n, off), func(r *reply) {
				r.said = backends.Range{Offset: off, Length: n}
				r.body = whole.cut(off, n)
			}
		}),
		replies("a larger range", func(g *gen) (string, func(*reply)) {
			before, behind := g.near(100_000), g.near(100_000)
			whole := g.s.now.stored.bytes
			return fmt.Sprintf("%d more before, %d behind", before, behind), func(r *reply) {
				from := max(0, r.asked.Offset-before)
				r.body = whole.cut(from, r.asked.Offset+r.asked.Length+behind-from)
				r.said = backends.Range{Offset: from, Length: r.body.size()}
			}
		}),
		replies("the range lied about", func(g *gen) (string, func(*reply)) {
			by, more := g.either(50_000), g.either(50_000)
			return fmt.Sprintf("by %d, length by %d", by, more), func(r *reply) {
				r.said.Offset, r.said.Length = max(0, r.said.Offset+by), max(0, r.said.Length+more)
			}
		}),
		replies("all for a range", func(g *gen) (string, func(*reply)) {
			whole, said := g.s.now.stored.bytes, g.IntN(2) == 0
			return fmt.Sprint("said: ", said), func(r *reply) {
				if r.body = whole; said {
					r.said = backends.Range{Length: whole.size()}
				}
			}
		}),
		replies("another total", func(g *gen) (string, func(*reply)) {
			by := g.either(100_000)
			return fmt.Sprint("by ", by), func(r *reply) { r.info.Size += by }
		}),
		replies("too few bytes", func(g *gen) (string, func(*reply)) {
			n := 1 + g.near(100_000)
			return fmt.Sprint(n, " missing"), func(r *reply) { r.body = r.body.cut(0, max(0, r.body.size()-n)) }
		}),
		replies("too many bytes", func(g *gen) (string, func(*reply)) {
			more := make([]byte, 1+g.near(100_000))
			return fmt.Sprint(len(more), " more"), func(r *reply) { r.body = append(r.body.from(0), more) }
		}),
		replies("half, then a failure", func(g *gen) (string, func(*reply)) {
			n := g.within(g.s.now.stored.bytes.size())
			fail := []error{io.ErrUnexpectedEOF, backends.ErrUnavailable, errReset, fmt.Errorf("wrapped: %w", io.EOF)}[g.IntN(4)]
			return fmt.Sprintf("%v after %d", fail, n), func(r *reply) { r.body, r.fail = r.body.cut(0, n), fail }
		}),
		replies("all, then a failure", func(*gen) (string, func(*reply)) {
			return "", func(r *reply) { r.fail = errReset }
		}),
		replies("slowly", func(*gen) (string, func(*reply)) {
			return "", func(r *reply) { r.slow = true }
		}),
		replies("an error's text as body", func(g *gen) (string, func(*reply)) {
			text := []byte("<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>")
			stripped, said := g.IntN(2) == 0, g.IntN(2) == 0
			return fmt.Sprintf("stripped: %t, said: %t", stripped, said), func(r *reply) {
				if r.body = (rope{text}); said {
					r.said, r.info.Size = backends.Range{Length: int64(len(text))}, int64(len(text))
				}
				if stripped {
					r.info.Attributes.Metadata = nil
				}
			}
		}),
		replies("nothing", func(*gen) (string, func(*reply)) {
			return "", func(r *reply) { r.body = nil }
		}),
		replies("a refusal", func(g *gen) (string, func(*reply)) {
			err := refusals()[g.IntN(len(refusals()))]
			return err.Error(), func(r *reply) { r.err = err }
		}),
	}
}

var errReset = errors.New("connection reset by peer")

// refusals are what a provider may say instead of an answer.
func refusals() []error {
	return []error{
		backends.ErrNotFound, backends.ErrPrecondition, backends.ErrDenied, backends.ErrUnavailable, backends.ErrVersionNotFound,
		&backends.NotModified{ETag: "x"}, &backends.RangeError{Size: -1}, &backends.RangeError{Size: 5}, &backends.MarkerError{}, errReset,
	}
}
