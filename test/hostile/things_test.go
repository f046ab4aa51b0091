package hostile

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"

	"chatelaine/gateway/sealed"
)

// kind is a way to attack what lies under a name, or how it is answered.
type kind struct {
	name string
	// large: only objects of several parts can be attacked so.
	large bool
	// older: what comes of it may be the version before, whole and consistent. No reader
	// can tell without a memory of its own (FORMAT.md section 8).
	older bool
	make  func(g *gen) *attack
	// over goes a path of its own, which it names, in place of make.
	over func(t *trial) (string, verdict)
}

// gen draws attacks. All that it draws follows from its seed.
type gen struct {
	*rand.Rand
	w *world
	s *subject
}

// other is another subject, of the same kind if there is one.
func (g *gen) other() *subject {
	for range 64 {
		if o := g.w.subjects[g.IntN(len(g.w.subjects))]; o != g.s && o.multipart() == g.s.multipart() {
			return o
		}
	}
	return g.s
}

// elsewhere is the subject of the same name in another bucket.
func (g *gen) elsewhere() *subject {
	for _, o := range g.w.subjects {
		if o.key == g.s.key && o.bucket.Name != g.s.bucket.Name {
			return o
		}
	}
	return g.other()
}

func (g *gen) mask() byte { return byte(1 << g.IntN(8)) }

// within is an offset in a run of n bytes.
func (g *gen) within(n int64) int64 { return g.Int64N(max(1, n)) }

// part is one part of the subject.
func (g *gen) part() part { return g.s.now.parts[g.IntN(len(g.s.now.parts))] }

// chunk is where a sealed chunk of a part lies, and how long it is.
func (p part) chunk(i int64) (at, n int64) {
	at = sealed.HeaderSize + i*sealed.SealedChunkSize
	return p.sealed + at, min(sealed.SealedChunkSize, p.sealedLength-at)
}

func (p part) chunks() int64 { return p.length/sealed.ChunkSize + 1 }

// trailer is where zeros, trailer and footer of a version begin.
func (v *version) trailer() (zeros, trailer, footer int64) {
	last := v.parts[len(v.parts)-1]
	footer = v.stored.bytes.size() - 8
	return last.sealed + last.sealedLength, footer - sealed.MessageSize(104+32*int64(len(v.parts))), footer
}

// things are attacks on what lies there.
func things() []kind {
	all := append(flips(), lengths()...)
	all = append(all, chunks()...)
	all = append(all, parts()...)
	return append(append(all, metadata()...), whole()...)
}

// flip makes a kind that changes bits in a region.
func flip(name string, large bool, region func(g *gen) (at, n int64)) kind {
	return kind{name: "flipped: " + name, large: large, make: func(g *gen) *attack {
		at, n := region(g)
		at += g.within(n)
		mask := g.mask()
		return &attack{detail: fmt.Sprintf("byte %d by %02x", at, mask), thing: func(o *thing) { o.bytes = o.bytes.flip(at, mask) }}
	}}
}

func flips() []kind {
	return []kind{
		flip("salt of a part", false, func(g *gen) (int64, int64) { return g.part().sealed, sealed.SaltSize }),
		flip("commitment of a part", false, func(g *gen) (int64, int64) { return g.part().sealed + sealed.SaltSize, 32 }),
		flip("chunk", false, func(g *gen) (int64, int64) { p := g.part(); return p.chunk(g.within(p.chunks())) }),
		flip("tag of a chunk", false, func(g *gen) (int64, int64) {
			p := g.part()
			at, n := p.chunk(g.within(p.chunks()))
			return at + n - sealed.TagSize, sealed.TagSize
		}),
		flip("filler", true, func(g *gen) (int64, int64) {
			zeros, trailer, _ := g.s.now.trailer()
			return zeros, trailer - zeros
		}),
		flip("trailer", false, func(g *gen) (int64, int64) {
			_, trailer, footer := g.s.now.trailer()
			return trailer, footer - trailer
		}),
		flip("footer", false, func(g *gen) (int64, int64) { _, _, footer := g.s.now.trailer(); return footer, 8 }),
		flip("anywhere", false, func(g *gen) (int64, int64) { return 0, g.s.now.stored.bytes.size() }),
	}
}

// claim settles what size the provider says that changed bytes have: theirs, the size
// from before, or that with zeros or noise to fill it.
func (g *gen) claim() (what string, settle func(o *thing)) {
	size := g.s.now.stored.bytes.size()
	switch g.IntN(3) {
	case 0:
		return "said as it is", (*thing).resize
	case 1:
		return "said as before", func(*thing) {}
	}
	return "filled up", func(o *thing) {
		if missing := size - o.bytes.size(); missing > 0 {
			o.bytes = append(o.bytes.from(0), make([]byte, missing))
		}
		o.bytes = o.bytes.cut(0, size)
	}
}

// edit makes a kind that changes the length of the bytes.
func edit(name string, large bool, change func(g *gen) (detail string, f func(rope) rope)) kind {
	return kind{name: name, large: large, make: func(g *gen) *attack {
		detail, f := change(g)
		what, settle := g.claim()
		return &attack{detail: detail + ", " + what, thing: func(o *thing) {
			o.bytes = f(o.bytes)
			settle(o)
		}}
	}}
}

func lengths() []kind {
	return []kind{
		edit("cut: end", false, func(g *gen) (string, func(rope) rope) {
			n := 1 + g.near(g.s.now.stored.bytes.size())
			return fmt.Sprint(n, " bytes"), func(r rope) rope { return r.cut(0, max(0, r.size()-n)) }
		}),
		edit("cut: beginning", false, func(g *gen) (string, func(rope) rope) {
			n := 1 + g.near(g.s.now.stored.bytes.size())
			return fmt.Sprint(n, " bytes"), func(r rope) rope { return r.from(n) }
		}),
		edit("cut: middle", false, func(g *gen) (string, func(rope) rope) {
			at, n := g.within(g.s.now.stored.bytes.size()), 1+g.near(50_000)
			return fmt.Sprintf("%d bytes at %d", n, at), func(r rope) rope { return r.splice(at, n, nil) }
		}),
		edit("extended", false, func(g *gen) (string, func(rope) rope) {
			at, more := g.within(g.s.now.stored.bytes.size()+1), make([]byte, 1+g.near(50_000))
			if g.IntN(4) == 0 {
				at = g.s.now.stored.bytes.size()
			}
			return fmt.Sprintf("%d bytes at %d", len(more), at), func(r rope) rope { return r.splice(at, 0, rope{more}) }
		}),
		edit("cut to the size of a shorter object", false, func(g *gen) (string, func(rope) rope) {
			n := g.within(g.s.now.parts[0].length + 1)
			return fmt.Sprint(n, " bytes"), func(r rope) rope {
				_, trailer, _ := g.s.now.trailer()
				end := r.from(trailer)
				return r.cut(0, max(0, sealed.Size(n)-end.size())).splice(sealed.Size(n), 0, end)
			}
		}),
	}
}

// near is a number below n, often one of those that matter.
func (g *gen) near(n int64) int64 {
	if n > 0 && g.IntN(2) == 0 {
		return g.Int64N(n)
	}
	all := []int64{0, 7, 15, 16, 55, 56, 16383, 16384, 16399, 16400, 16455, 32800}
	return min(max(0, n-1), all[g.IntN(len(all))])
}

// either is a number up to n, or the negative of one.
func (g *gen) either(n int64) int64 { return (1 + g.near(n)) * (1 - 2*g.Int64N(2)) }

func chunks() []kind {
	// somewhere is a chunk of a part, and another one.
	somewhere := func(g *gen) (p part, i, j int64) {
		p = g.part()
		return p, g.within(p.chunks()), g.within(p.chunks())
	}
	return []kind{
		edit("chunk dropped", false, func(g *gen) (string, func(rope) rope) {
			p, i, _ := somewhere(g)
			at, n := p.chunk(i)
			return fmt.Sprintf("chunk %d of part %d", i, p.number), func(r rope) rope { return r.splice(at, n, nil) }
		}),
		edit("chunk repeated", false, func(g *gen) (string, func(rope) rope) {
			p, i, j := somewhere(g)
			at, n := p.chunk(i)
			to, m := p.chunk(j)
			if g.IntN(2) == 0 {
				m = 0 // as one more
			}
			return fmt.Sprintf("chunk %d of part %d at %d", i, p.number, j), func(r rope) rope { return r.splice(to, m, r.cut(at, n)) }
		}),
		edit("chunks swapped", false, func(g *gen) (string, func(rope) rope) {
			p, i, j := somewhere(g)
			a, n := p.chunk(min(i, j))
			b, m := p.chunk(max(i, j))
			return fmt.Sprintf("chunks %d and %d of part %d", i, j, p.number), func(r rope) rope {
				first, second := r.cut(a, n), r.cut(b, m)
				return r.splice(b, m, first).splice(a, n, second)
			}
		}),
		edit("chunk of another part", true, func(g *gen) (string, func(rope) rope) {
			all := g.s.now.parts
			from := g.IntN(len(all))
			p, q := all[from], all[(from+1+g.IntN(len(all)-1))%len(all)]
			i := g.within(min(p.chunks(), q.chunks()))
			a, n := p.chunk(i)
			b, m := q.chunk(i)
			return fmt.Sprintf("chunk %d of part %d in part %d", i, p.number, q.number), func(r rope) rope { return r.splice(b, m, r.cut(a, n)) }
		}),
		edit("chunk of another object", false, func(g *gen) (string, func(rope) rope) {
			p, i, _ := somewhere(g)
			v, what := g.stranger()
			at, n := p.chunk(i)
			return fmt.Sprintf("chunk %d of part %d from %s", i, p.number, what), func(r rope) rope { return r.splice(at, n, v.stored.bytes.cut(at, n)) }
		}),
	}
}

// stranger is some version of another object, or the version before of this one.
func (g *gen) stranger() (*version, string) {
	switch g.IntN(4) {
	case 0:
		return g.s.old, "the version before"
	case 1:
		o := g.elsewhere()
		return o.now, o.name
	}
	o := g.other()
	return o.now, o.name
}

func parts() []kind {
	return []kind{
		edit("part dropped", true, func(g *gen) (string, func(rope) rope) {
			p := g.part()
			return fmt.Sprint("part ", p.number), func(r rope) rope { return r.splice(p.sealed, p.sealedLength, nil) }
		}),
		edit("part repeated", true, func(g *gen) (string, func(rope) rope) {
			p, q := g.part(), g.part()
			m := q.sealedLength
			if g.IntN(2) == 0 {
				m = 0
			}
			return fmt.Sprintf("part %d at part %d", p.number, q.number), func(r rope) rope {
				return r.splice(q.sealed, m, r.cut(p.sealed, p.sealedLength))
			}
		}),
		edit("parts swapped", true, func(g *gen) (string, func(rope) rope) {
			all := g.s.now.parts
			i := g.IntN(len(all) - 1)
			p, q := all[i], all[i+1]
			return fmt.Sprintf("parts %d and %d", p.number, q.number), func(r rope) rope {
				first, second := r.cut(p.sealed, p.sealedLength), r.cut(q.sealed, q.sealedLength)
				return r.splice(p.sealed, p.sealedLength+q.sealedLength, append(second.from(0), first...))
			}
		}),
		edit("part of another object", true, func(g *gen) (string, func(rope) rope) {
			o := g.w.large[g.IntN(len(g.w.large))]
			i := g.IntN(min(len(g.s.now.parts), len(o.now.parts)))
			return fmt.Sprintf("part %d from %s", i, o.name), transplant(g.s.now.parts[i], o.now.parts[i], o.now.stored.bytes)
		}),
		edit("part of another upload", true, func(g *gen) (string, func(rope) rope) {
			i := g.IntN(len(g.s.now.parts))
			return fmt.Sprint("part ", i), transplant(g.s.now.parts[i], g.s.old.parts[i], g.s.old.stored.bytes)
		}),
		edit("part of an earlier attempt", true, func(g *gen) (string, func(rope) rope) {
			p, attempt := g.s.now.parts[0], g.s.now.earlier[0]
			if g.IntN(2) == 0 {
				return fmt.Sprint("part ", p.number), func(r rope) rope { return r.splice(p.sealed, p.sealedLength, attempt) }
			}
			at, n := p.chunk(g.within(p.chunks()))
			return fmt.Sprint("a chunk of part ", p.number), func(r rope) rope { return r.splice(at, n, attempt.cut(at-p.sealed, n)) }
		}),
		edit("trailer of another object", false, func(g *gen) (string, func(rope) rope) {
			v, what := g.stranger()
			_, from, _ := v.trailer()
			_, to, _ := g.s.now.trailer()
			return "from " + what, func(r rope) rope { return append(r.cut(0, to), v.stored.bytes.from(from)...) }
		}),
	}
}

// transplant puts the bytes of q in the place of p.
func transplant(p, q part, from rope) func(rope) rope {
	return func(r rope) rope { return r.splice(p.sealed, p.sealedLength, from.cut(q.sealed, q.sealedLength)) }
}

// header makes a kind that changes the envelope.
func header(name string, change func(g *gen) (detail, header string)) kind {
	return kind{name: "metadata " + name, make: func(g *gen) *attack {
		detail, h := change(g)
		return &attack{detail: detail, thing: func(o *thing) { o.setEnvelope(h) }}
	}}
}

func metadata() []kind {
	return []kind{
		header("swapped", func(g *gen) (string, string) { o := g.other(); return "with " + o.name, o.now.stored.envelope() }),
		header("of another bucket", func(g *gen) (string, string) {
			o := g.elsewhere()
			return "of " + o.name, o.now.stored.envelope()
		}),
		header("flipped", func(g *gen) (string, string) { return g.flipped(g.s.now.stored.envelope()) }),
		header("cut or extended", func(g *gen) (string, string) {
			h := g.s.now.stored.envelope()
			switch at := g.IntN(len(h)); g.IntN(3) {
			case 0:
				return "cut", h[:at]
			case 1:
				return "extended", h + h[at:]
			default:
				return "one spelling more", h[:at] + "\n" + h[at:]
			}
		}),
		header("replaced by text", func(g *gen) (string, string) {
			all := []string{"", "1.", "2.", "0", "text/plain", "1." + base64.RawURLEncoding.EncodeToString(make([]byte, 16+56+16+74)), "plain"}
			h := all[g.IntN(len(all))]
			return h, h
		}),
		{name: "metadata of the version before", older: true, make: func(g *gen) *attack {
			h := g.s.old.stored.envelope()
			return &attack{thing: func(o *thing) { o.setEnvelope(h) }}
		}},
		{name: "metadata stripped", make: func(g *gen) *attack {
			return &attack{thing: func(o *thing) {
				o.info.Attributes.Metadata = nil
				o.info.Attributes.ContentType = "text/plain"
			}}
		}},
	}
}

// flipped changes one letter, or a byte of what the letters stand for.
func (g *gen) flipped(h string) (string, string) {
	raw, err := base64.RawURLEncoding.DecodeString(h[2:])
	if err != nil || g.IntN(8) == 0 {
		at := g.IntN(len(h))
		b := []byte(h)
		b[at] ^= g.mask()
		return fmt.Sprint("letter ", at), string(b)
	}
	at := g.IntN(len(raw))
	raw[at] ^= g.mask()
	return fmt.Sprint("byte ", at), h[:2] + base64.RawURLEncoding.EncodeToString(raw)
}

// whole are attacks on all of an object.
func whole() []kind {
	return []kind{
		{name: "size lied about", make: func(g *gen) *attack {
			size := g.s.now.stored.info.Size
			plain := int64(len(g.s.now.plain))
			all := []int64{
				size - 1, size + 1, size - 16400, sealed.Size(g.Int64N(1 << 20)), sealed.Size(max(0, plain-1)),
				sealed.Size(plain + 1), 0, -1, 1 << 62, sealed.Size(sealed.MaxLength), g.other().now.stored.info.Size,
			}
			lie := all[g.IntN(len(all))]
			return &attack{detail: fmt.Sprint(lie), thing: func(o *thing) { o.info.Size = lie }}
		}},
		{name: "ETag lied about", older: true, make: func(g *gen) *attack {
			v, other := g.s.old, g.other()
			lie := []string{"", g.s.old.stored.info.ETag, other.now.stored.info.ETag, g.s.now.stored.info.ETag, "x", "00000000000000000000000000000000"}[g.IntN(6)]
			old := g.IntN(2) == 0
			return &attack{detail: fmt.Sprintf("%q, version before: %t", lie, old), thing: func(o *thing) {
				if old {
					o.bytes, o.info = v.stored.bytes, v.stored.info
				}
				o.info.ETag = lie
			}}
		}},
		{name: "plaintext served", make: func(g *gen) *attack {
			plain, sized, stripped := g.s.now.plain, g.IntN(2) == 0, g.IntN(2) == 0
			return &attack{detail: fmt.Sprintf("size as it was: %t, stripped: %t", sized, stripped), thing: func(o *thing) {
				size := o.bytes.size()
				if o.bytes = (rope{plain}); sized {
					o.bytes = append(o.bytes, make([]byte, max(0, size-int64(len(plain)))))
				}
				if o.resize(); stripped {
					o.info.Attributes.Metadata = nil
				}
			}}
		}},
		{name: "another object whole", make: func(g *gen) *attack {
			o, keep := g.other(), g.IntN(2) == 0
			return &attack{detail: fmt.Sprintf("%s, ETag kept: %t", o.name, keep), thing: replaced(o.now, keep)}
		}},
		{name: "object of another bucket whole", make: func(g *gen) *attack {
			o, keep := g.elsewhere(), g.IntN(2) == 0
			return &attack{detail: fmt.Sprintf("%s, ETag kept: %t", o.name, keep), thing: replaced(o.now, keep)}
		}},
		{name: "bytes of another object", make: func(g *gen) *attack {
			v, what := g.stranger()
			sized := g.IntN(2) == 0
			return &attack{detail: what, thing: func(o *thing) {
				if o.bytes = v.stored.bytes; sized {
					o.resize()
				}
			}}
		}},
		{name: "version before, whole", older: true, make: func(g *gen) *attack {
			keep := g.IntN(2) == 0
			return &attack{detail: fmt.Sprintf("ETag kept: %t", keep), thing: replaced(g.s.old, keep)}
		}},
	}
}

// replaced puts another object in the place of one, with or without its ETag.
func replaced(v *version, keepETag bool) func(*thing) {
	return func(o *thing) {
		etag := o.info.ETag
		if *o = v.stored; keepETag {
			o.info.ETag = etag
		}
	}
}
