package hostile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/objects"
	"chatelaine/kms"
)

// A bucket with the rollback guard has a memory that its provider cannot reach: what is
// `known` elsewhere must be found there. So each past of an object is lived twice, in a
// bucket with the guard and in one without, where the attack proves that it is one.

const guardedBucket = "guarded"

// guard makes the bucket with the rollback guard.
func (w *world) guard(ctx context.Context, s *objects.Service) error {
	if err := s.CreateBucket(ctx, "ann", guardedBucket); err != nil {
		return err
	}
	w.buckets[guardedBucket] = w.ring.Guard(guardedBucket, keystest.LedgerOn)
	return nil
}

// past is what has become of an object, and what its provider makes of that.
type past struct {
	name string
	live func(l *life) *attack
}

// memory is what a trial's object is at the end of its past.
type memory struct {
	guarded bool
	deleted bool // nothing is there
	hidden  bool // the provider says that nothing is there
}

// allowed are the versions that an answer may be of: with the guard, the newest alone.
func (m *memory) allowed(s *subject) (out []*version) {
	if !m.deleted {
		out = append(out, s.now)
	}
	if !m.guarded {
		out = append(out, s.old)
	}
	return out
}

// refusal is the verdict on a path that ends with an error. Of objects with a past, "there
// is nothing" is an answer like others: the truth, what nobody can tell, or a lie.
func (t *trial) refusal(missing bool) verdict {
	m := t.memory
	switch {
	case m == nil || !missing:
		return verdict{outcome: refused}
	case m.deleted:
		return verdict{outcome: truthful}
	case m.hidden && !m.guarded:
		return verdict{outcome: known}
	}
	return lie("it says that there is nothing")
}

func isMissing(err error) bool {
	return errors.Is(err, backends.ErrNotFound) || errors.Is(err, backends.ErrDeleteMarker) || errors.Is(err, backends.ErrVersionNotFound)
}

// life is an object while its past is made.
type life struct {
	*trial
	m            *maker
	size, spread int64 // versions have size bytes, or up to spread more
	uploads      bool  // it is written in uploads
	late         bool  // its checksum comes late
}

func (l *life) write() *version { return l.writeBy(l.m) }

func (l *life) writeBy(m *maker) *version {
	size := l.size + l.near(l.spread)
	if l.uploads {
		return m.upload(l.s, []int{lifePart}, []int64{size}, false)
	}
	return m.put(l.s, size, l.late)
}

// lifePart is the number of the only part of uploads here.
const lifePart = 3

func (l *life) delete() {
	_, err := l.service.Delete(l.ctx, objects.DeleteRequest{Bucket: l.s.bucket, Key: l.s.key})
	l.m.err = errors.Join(l.m.err, err)
}

// shows is the attack that puts a version in the place of what lies there, or where
// nothing does.
func (l *life) shows(v *version) *attack {
	keep := l.IntN(2) == 0
	return &attack{detail: fmt.Sprintf("ETag kept: %t", keep), instead: func(o thing, err error) (thing, error) {
		shown := v.stored
		if err == nil && keep {
			shown.info.ETag = o.info.ETag
		}
		return shown, nil
	}}
}

func pasts() []past {
	return append([]past{
		{"version before", func(l *life) *attack {
			l.s.old, l.s.now = l.write(), l.write()
			return l.shows(l.s.old)
		}},
		{"version long before", func(l *life) *attack {
			l.s.old, _, l.s.now = l.write(), l.write(), l.write()
			return l.shows(l.s.old)
		}},
		{"attributes before", (*life).reattribute},
		{"metadata before", func(l *life) *attack {
			l.spread = 0
			l.s.old, l.s.now = l.write(), l.write()
			header := l.s.old.stored.envelope()
			return &attack{thing: func(o *thing) { o.setEnvelope(header) }}
		}},
		{"deleted and made again", func(l *life) *attack {
			l.s.old = l.write()
			l.delete()
			l.s.now = l.write()
			return l.shows(l.s.old)
		}},
	}, darkPasts()...)
}

// darkPasts are those in which something is not there, or was not to be.
func darkPasts() []past {
	return []past{
		{"deleted, served again", func(l *life) *attack {
			l.s.old = l.write()
			l.delete()
			ghost := *l.s.old // what requests are drawn for
			l.s.now, l.memory.deleted = &ghost, true
			return l.shows(l.s.old)
		}},
		{"hidden", func(l *life) *attack {
			l.s.old, l.s.now = l.write(), l.write()
			l.memory.hidden = true
			missing := []error{backends.ErrNotFound, &backends.MarkerError{}}[l.IntN(2)]
			return &attack{instead: func(thing, error) (thing, error) { return thing{}, missing }}
		}},
		{"version before, in turns", (*life).turns},
		{"before a killed write that was seen", (*life).killed},
		{"refused write carried out", (*life).refuse},
	}
}

// turns has the provider tell the truth, refuse, or show what was before, request by
// request: one that is believed must not stand for the next.
func (l *life) turns() *attack {
	l.s.old, l.s.now = l.write(), l.write()
	l.memory.hidden = true
	var turns [6]int
	for i := range turns {
		turns[i] = l.IntN(5)
	}
	var calls atomic.Int64
	return &attack{detail: fmt.Sprint(turns), instead: func(o thing, err error) (thing, error) {
		call := int(calls.Add(1)) - 1
		switch {
		case call >= len(turns) || turns[call] < 2:
			return l.s.old.stored, nil
		case turns[call] == 2:
			return thing{}, backends.ErrPrecondition
		case turns[call] == 3:
			return thing{}, backends.ErrNotFound
		}
		return o, err
	}}
}

// reattribute copies the object onto itself, with other attributes: the sealed bytes are
// the same.
func (l *life) reattribute() *attack {
	l.s.old = l.write()
	now := *l.s.old
	now.attrs = l.m.attributes()
	_, err := l.service.Copy(l.ctx, objects.CopyRequest{
		Source: objects.GetRequest{Bucket: l.s.bucket, Key: l.s.key}, Bucket: l.s.bucket, Key: l.s.key, Replace: true, Attributes: now.attrs,
	})
	l.m.err = errors.Join(l.m.err, err)
	l.m.stored(l.s, &now)
	l.s.now = &now
	return l.shows(l.s.old)
}

// killed has a gateway die after the store has the write and before the ledger hears so.
// A reader sees it, which settles that it is the newest.
func (l *life) killed() *attack {
	l.s.old = l.write()
	dying := *l.m
	if dying.s, l.m.err = l.w.serviceWith(deaf{l.w.ring}, l.view); l.m.err != nil {
		return &attack{}
	}
	l.s.now = l.writeBy(&dying)
	if l.memory.guarded && dying.err == nil {
		dying.err = errors.New("a write whose end the ledger does not know was acknowledged")
	} else if errors.Is(dying.err, errDeaf) {
		dying.err = nil
	}
	dying.s, l.m = l.service, &dying
	st, _, err := l.service.Head(l.ctx, objects.GetRequest{Bucket: l.s.bucket, Key: l.s.key, Checksums: true})
	l.s.now.sums = st.Checksums // of an upload, they come with the answer that nobody got
	l.m.err = errors.Join(l.m.err, err)
	return l.shows(l.s.old)
}

// deaf is a keyring of a gateway that dies before it tells how a write ended.
type deaf struct{ *keystest.Ring }

var errDeaf = errors.New("killed")

// EndWrite implements objects.Keyring.
func (deaf) EndWrite(context.Context, keys.LedgerAttempt, bool) error { return errDeaf }

// refuse has the provider refuse a write, and keep it for later.
func (l *life) refuse() *attack {
	l.uploads = false
	l.s.now = l.write()
	kept := backends.ObjectID{Bucket: l.s.bucket.StoreName, Key: l.s.key + keptSuffix}
	told := *l.m
	if told.s, l.m.err = l.w.service(refusing{l.view, kept}); l.m.err != nil {
		return &attack{}
	}
	l.s.old = l.writeBy(&told)
	if !errors.Is(told.err, backends.ErrPrecondition) {
		l.m.err = fmt.Errorf("a write that was refused ended with %w", told.err)
		return &attack{}
	}
	l.m.seed = told.seed
	l.s.old.stored, l.m.err = l.w.look(l.ctx, kept)
	l.s.old.stored.info.Key = l.s.key
	return l.shows(l.s.old)
}

// keptSuffix is behind the name of what was refused and is kept.
const keptSuffix = ".kept"

// refusing is a store that keeps what it refuses.
type refusing struct {
	backends.Store
	kept backends.ObjectID
}

// Put implements backends.Store.
func (r refusing) Put(ctx context.Context, _ backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	if _, err := r.Store.Put(ctx, r.kept, body, &backends.PutOptions{Attributes: opts.Attributes}); err != nil {
		return backends.Written{}, err
	}
	return backends.Written{}, backends.ErrPrecondition
}

// born begins a life in a bucket with the guard, or in one without.
func (t *trial) born(guarded bool) *life {
	bucket := plainBucket
	if guarded {
		bucket = guardedBucket
	}
	g := *t.gen
	g.s = &subject{name: "an object in " + bucket, bucket: t.w.buckets[bucket], key: fmt.Sprintf("pasts/%d", t.Uint64())}
	inner := *t
	inner.gen, inner.memory = &g, &memory{guarded: guarded}
	return &life{
		trial: &inner, m: &maker{world: t.w, ctx: t.ctx, s: t.service, seed: t.Uint64() >> 32},
		size: []int64{0, 1, 700, 20_000, 40_000}[t.IntN(5)], spread: 100, uploads: t.IntN(3) == 0, late: t.IntN(2) == 0,
	}
}

// end removes what a life has left, to save memory.
func (l *life) end() {
	l.view.armed.Store(false)
	l.remove(l.s.key)
	l.remove(l.s.key + keptSuffix)
	l.view.mu.Lock()
	defer l.view.mu.Unlock()
	delete(l.view.things, l.s.bucket.StoreName+"/"+l.s.key)
	delete(l.view.things, l.s.bucket.StoreName+"/"+l.s.key+keptSuffix)
	for _, id := range l.m.uploadIDs {
		delete(l.view.attempts, attemptKey(id, lifePart))
	}
}

// replay lives a past, has the provider attack, and goes a path.
func (t *trial) replay(p past, guarded bool, way path) verdict {
	l := t.born(guarded)
	defer func() { l.end() }()
	a := p.live(l)
	if l.m.err != nil {
		return lie("making a past: %v", l.m.err)
	}
	l.kind = kind{name: p.name, make: func(*gen) *attack { return a }}
	return l.attack(way)
}

// guardedPaths are those on which the guard watches. Lists and what reads without a
// gateway know nothing of it (DECISIONS.md of gateway/objects).
func guardedPaths() []path {
	return slices.DeleteFunc(paths(), func(p path) bool { return p.name == "LIST" || strings.HasPrefix(p.name, "break-glass ") })
}

// Before the names of kinds, and of paths.
const (
	guardedPrefix   = "guarded: "
	unguardedPrefix = "unguarded: "
)

// replays are the attacks of all pasts, with the guard and without.
func replays() (out []kind) {
	for _, p := range pasts() {
		for prefix, guarded := range map[string]bool{guardedPrefix: true, unguardedPrefix: false} {
			out = append(out, kind{name: prefix + p.name, over: func(t *trial) (string, verdict) {
				ways := guardedPaths()
				way := ways[t.IntN(len(ways))]
				return prefix + way.name, t.replay(p, guarded, way)
			}})
		}
	}
	slices.SortFunc(out, func(a, b kind) int { return strings.Compare(a.name, b.name) }) // a seed repeats them
	return out
}

// assertReplaysStrike wants each past to have deceived a gateway without the guard: else
// the guard has refused nothing that mattered.
func (l *tally) assertReplaysStrike(t *testing.T) {
	t.Helper()
	for name, counts := range l.kinds {
		if strings.HasPrefix(name, unguardedPrefix) && counts[known] == 0 {
			t.Errorf("%q has deceived nobody", name)
		}
		if strings.HasPrefix(name, guardedPrefix) && counts[known] > 0 {
			t.Errorf("%q: %d of what the guard must find are called known", name, counts[known])
		}
	}
}

// off is a keyring whose ledgers say that there is no guard.
type off struct{ *keystest.Ring }

// LookLedger implements objects.Keyring.
func (off) LookLedger(context.Context, keys.Bucket, keys.Mark) (keys.LedgerView, error) {
	return keys.LedgerView{}, nil
}

// gullible is a keyring whose ledgers vouch for everything.
type gullible struct{ *keystest.Ring }

// LookLedger implements objects.Keyring.
func (gullible) LookLedger(context.Context, keys.Bucket, keys.Mark) (keys.LedgerView, error) {
	return keys.NewLedgerView(kms.NewLedgerEntry(keystest.LedgerLearning), 1, time.Now()), nil
}

// TestAGuardThatDoesNotRefuseIsFound replays each past over five paths: before a guard that
// works nothing may be known or wrong, without one something must be known, and with one
// that vouches for everything something must be wrong.
func TestAGuardThatDoesNotRefuseIsFound(t *testing.T) {
	for name, tt := range map[string]struct {
		ring    func(*keystest.Ring) objects.Keyring
		guarded bool
		want    outcome
		never   []outcome
	}{
		"a guard that works":    {func(r *keystest.Ring) objects.Keyring { return r }, true, refused, []outcome{known, wrong}},
		"no guard":              {func(r *keystest.Ring) objects.Keyring { return r }, false, known, []outcome{wrong}},
		"a guard that is off":   {func(r *keystest.Ring) objects.Keyring { return off{r} }, true, wrong, nil},
		"a guard that believes": {func(r *keystest.Ring) objects.Keyring { return gullible{r} }, true, wrong, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newGuardedWorld(t)
			for i, p := range pasts() {
				got := w.replays(t, tt.ring(w.ring), p, tt.guarded, uint64(i))
				if got[tt.want].outcome != tt.want {
					t.Errorf("%s: got %v, want %q too", p.name, got, tt.want)
				}
				for _, never := range tt.never {
					if v, ok := got[never]; ok {
						t.Errorf("%s: got %q: %s", p.name, never, v.why)
					}
				}
			}
		})
	}
}

// newGuardedWorld is a world with nothing in its two buckets.
func newGuardedWorld(t *testing.T) *world {
	t.Helper()
	w := &world{cloud: newCloud(), ring: keystest.New(), buckets: map[string]keys.Bucket{}}
	s, err := w.service(w.cloud)
	if err == nil {
		err = errors.Join(s.CreateBucket(t.Context(), "ann", plainBucket), w.guard(t.Context(), s))
	}
	if err == nil {
		w.buckets[plainBucket], err = s.Bucket(t.Context(), plainBucket)
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// replays collects what comes of a past, with an example of each outcome.
func (w *world) replays(t *testing.T, ring objects.Keyring, p past, guarded bool, stream uint64) map[outcome]verdict {
	t.Helper()
	out := map[outcome]verdict{}
	for i, way := range guardedPaths() {
		if !slices.Contains([]string{"GET", "GET range", "HEAD", "copy by the backend", "UploadPartCopy"}, way.name) {
			continue
		}
		for seed := range uint64(6) {
			v := &view{cloud: w.cloud, attack: &attack{}}
			s, err := w.serviceWith(ring, v)
			if err != nil {
				t.Fatal(err)
			}
			tr := &trial{gen: &gen{Rand: rand.New(rand.NewPCG(seed<<8|uint64(i), stream)), w: w}, ctx: t.Context(), view: v, service: s}
			got := tr.replay(p, guarded, way)
			got.why = way.name + ": " + got.why
			out[got.outcome] = got
		}
	}
	return out
}

// TestThatThereIsNothingIsJudgedToo gives the judge answers of "there is nothing".
func TestThatThereIsNothingIsJudgedToo(t *testing.T) {
	for name, tt := range map[string]struct {
		memory  *memory
		missing bool
		want    outcome
	}{
		"of an object without a past":          {nil, true, refused},
		"of a deleted one":                     {&memory{deleted: true}, true, truthful},
		"of a deleted one, with the guard":     {&memory{deleted: true, guarded: true}, true, truthful},
		"of a hidden one":                      {&memory{hidden: true}, true, known},
		"of a hidden one, with the guard":      {&memory{hidden: true, guarded: true}, true, wrong},
		"of one that is there":                 {&memory{}, true, wrong},
		"of one that is there, with the guard": {&memory{guarded: true}, true, wrong},
		"in other words":                       {&memory{hidden: true, guarded: true}, false, refused},
	} {
		if got := (&trial{memory: tt.memory}).refusal(tt.missing); got.outcome != tt.want {
			t.Errorf("%s: got %v (%s), want %v", name, got.outcome, got.why, tt.want)
		}
	}
}
