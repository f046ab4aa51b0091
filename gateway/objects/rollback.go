package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// ErrRolledBack: what the backend shows of an object is not its newest version: an
// older one, one that was deleted, or nothing where there is one.
var ErrRolledBack = errors.New("the backend does not show the newest version")

var (
	// errUnvouched: the ledger does not know what was found, or not for certain.
	errUnvouched = errors.New("the ledger has another version")
	// errRestless is no accusation: each look found other writes.
	errRestless = fmt.Errorf("%w: the object is written all the time", backends.ErrUnavailable)
	// errVanished: what the ledger has vouched for is gone at the next request. It may have
	// been deleted meanwhile, so it is looked for again; "not found" is the ledger's to say.
	errVanished = fmt.Errorf("%w: %w: it was there just now", errReplaced, backends.ErrUnavailable)
)

const (
	// suspicions is how many times in a row the backend and the ledger must differ,
	// while nothing is written, before the backend is accused.
	suspicions = 2
	maxLooks   = 8
)

// guarded says whether what is found is held against a ledger. The gateway's own objects
// are not in it.
func (q *query) guarded() bool { return q.r.Bucket.Guarded && !Reserved(q.r.Key) }

// wantsNewest says whether no version is named, or that of a bucket without versions.
func (q *query) wantsNewest() bool { return q.r.Version == "" || q.r.Version == "null" }

// checksConditions says whether a read's conditions are evaluated here. In a guarded
// bucket they are, as an answer of "not modified" has no envelope to be vouched for.
func (q *query) checksConditions() bool { return q.r.Bucket.MD5 || q.guarded() }

// vouched does what reads an object, and has the ledger vouch for what is found. At
// first it is asked while the backend is; where they differ, before and after: a write
// may have come between.
func vouched[T any](q *query, do func() (T, error)) (T, error) {
	var none T
	conditions := q.r.Conditions
	afresh := func() (T, error) {
		q.r.Conditions = conditions // check ticks them off
		return do()
	}
	if !q.guarded() {
		return again(afresh)
	}
	w, err := q.newWitness()
	if err != nil {
		return none, err
	}
	q.witness = w
	for suspected := 0; w.looks < maxLooks; {
		w.look(q.ctx)
		out, err := again(afresh)
		if isMissing(err) && q.wantsNewest() {
			if vouchErr := w.vouch(q.ctx, keys.Mark{}); vouchErr != nil {
				err = vouchErr
			}
		}
		if !errors.Is(err, errUnvouched) {
			return out, err
		}
		unchanged, err := w.unchanged(q.ctx)
		if err != nil {
			return none, err
		}
		if suspected++; !unchanged {
			suspected = 0
		}
		if suspected == suspicions {
			return none, w.accuse()
		}
	}
	return none, errRestless
}

// isMissing says whether the backend says that there is no such object.
func isMissing(err error) bool {
	return errors.Is(err, backends.ErrNotFound) || errors.Is(err, backends.ErrDeleteMarker) || errors.Is(err, backends.ErrVersionNotFound)
}

// witness holds what the backend shows of one object against the ledger.
type witness struct {
	*query
	marker
	name  keys.Mark
	looks int
	// asked is the look under way, and view what came of it. before says that it had come
	// before the backend was asked.
	asked  chan looked
	view   *keys.LedgerView
	before bool
	// found is what the backend has shown last; settled, that the ledger has vouched for
	// it, and was told of it where it asked.
	found   []keys.Mark
	settled bool
}

type looked struct {
	view keys.LedgerView
	err  error
}

func (q *query) newWitness() (*witness, error) {
	m, err := q.marker(q.ctx, q.r.Bucket, q.r.Key)
	if err != nil {
		return nil, err
	}
	name, err := m.object()
	return &witness{query: q, marker: m, name: name}, err
}

// look asks the ledger: the first time while the backend is asked, then before.
func (w *witness) look(ctx context.Context) {
	asked := make(chan looked, 1)
	w.asked, w.view, w.settled = asked, nil, false
	ask := func() {
		view, err := w.keys.LookLedger(ctx, w.r.Bucket, w.name)
		asked <- looked{view, err}
	}
	if w.before = w.looks > 0; w.before {
		ask()
	} else {
		go ask()
	}
	w.looks++
}

// seen is what the look has found.
func (w *witness) seen() (keys.LedgerView, error) {
	if w.view == nil {
		l := <-w.asked // ends with the look's context at the latest
		if l.err != nil {
			w.asked <- l // whoever asks again gets the same
			return keys.LedgerView{}, l.err
		}
		w.view = &l.view
	}
	return *w.view, nil
}

// vouchFor is vouch for an object whose envelope is open.
func (w *witness) vouchFor(ctx context.Context, info backends.Info, env sealed.Envelope) error {
	tags, err := w.tagsOf(info, env)
	if err != nil {
		return err
	}
	return w.vouch(ctx, tags...)
}

// vouch says whether what was found, by its tags, may be the newest: errUnvouched where
// it is not, or where it may be and a look before is needed to be certain.
func (w *witness) vouch(ctx context.Context, tags ...keys.Mark) error {
	same := w.settled && slices.Equal(w.found, tags)
	w.found = tags
	view, err := w.seen()
	switch {
	case err != nil || !view.Guarded || same:
		return err
	case w.settled: // an earlier request of this read has met another one
		return errUnvouched
	}
	verdict := view.Judge(tags...)
	switch {
	case !verdict.Known, verdict.Doubtful && verdict.Open == keys.Mark{} && !w.before:
		return errUnvouched
	case verdict.Doubtful || verdict.Open != keys.Mark{}:
		err = w.settle(ctx, view, verdict, tags)
	}
	w.settled = err == nil
	return err
}

// settle tells the ledger what was found: from then on, nothing older is vouched for.
func (w *witness) settle(ctx context.Context, view keys.LedgerView, verdict keys.Verdict, tags []keys.Mark) error {
	tag, ok := view.Tag(tags...)
	if !ok {
		tag = tags[0] // of what the ledger had learned nothing about
	}
	err := w.keys.SettleLedger(ctx, keys.Sighting{Bucket: w.r.Bucket, Name: w.name, Tag: tag, Open: verdict.Open, View: view})
	if errors.Is(err, keys.ErrLedgerChanged) {
		return fmt.Errorf("%w: %w", errUnvouched, err)
	}
	return err
}

// unchanged looks once more, and says whether nothing was written since before the
// backend was asked.
func (w *witness) unchanged(ctx context.Context) (bool, error) {
	view, err := w.seen()
	if err != nil || !w.before {
		return false, err
	}
	now, err := w.keys.LookLedger(ctx, w.r.Bucket, w.name)
	return err == nil && now.Guarded && now.Same(view) && !now.Judge(w.found...).Known, err
}

// accuse is the error of a backend that shows another version, or none.
func (w *witness) accuse() error {
	what := "another version than the newest, or one that was deleted"
	if len(w.found) == 1 && w.found[0] == (keys.Mark{}) {
		what = "nothing where there is an object"
	}
	b := w.r.Bucket
	w.log.Error("the rollback guard has found "+what, zap.String("bucket", b.Name), zap.String("key", w.r.Key), zap.String("store", b.Store))
	w.metrics.rollbacks.WithLabelValues(b.Store).Inc()
	return fmt.Errorf("%w: %s", ErrRolledBack, what)
}
