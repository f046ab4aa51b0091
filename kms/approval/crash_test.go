package approval

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
)

// crashing is a registry whose Commit sometimes fails, before or after it was applied:
// as when the process dies at that moment.
type crashing struct {
	kms.Registry
	random *rand.Rand
}

func (c *crashing) Commit(ctx context.Context, t kms.Transaction) error {
	switch c.random.IntN(6) {
	case 0:
		return fmt.Errorf("%w: before", kms.ErrUnavailable)
	case 1:
		return errors.Join(c.Registry.Commit(ctx, t), fmt.Errorf("%w: after", kms.ErrUnavailable))
	}
	return c.Registry.Commit(ctx, t)
}

// TestCrashesLeaveNothingHalfDone has processes that crash at any commit do random steps,
// and looks after each: what was done has a request that is used and proves itself
// from the ceremony on, with enough people who did not ask; nothing was done twice; and
// the rules can be read.
func TestCrashesLeaveNothingHalfDone(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := founded(t, usual)
			random := rand.New(rand.NewPCG(seed, 7))
			var asked []Request
			for i := range 150 {
				c := w.control(t, Config{Registry: &crashing{Registry: w.memory, random: random}})
				step(t, w, c, random, &asked)
				w.hands.pass(time.Duration(random.IntN(20)) * time.Minute)
				if i%5 == 4 {
					inspect(t, w)
				}
			}
			if items, err := w.memory.List(t.Context(), "done/"); err != nil || len(items) == 0 {
				t.Errorf("nothing was ever done: the test shows nothing (%v)", err)
			}
		})
	}
}

// step is one thing that somebody tries. Whether it works is inspect's business.
func step(t *testing.T, w *world, c *Control, random *rand.Rand, asked *[]Request) {
	ctx := t.Context()
	someone := func() signatory { return person(staff()[random.IntN(len(staff()))]) }
	kind := random.IntN(10)
	switch {
	case len(*asked) == 0 || kind < 2:
		op := kms.Operation{Action: kms.ActionUnblock, Resource: fmt.Sprint("key/", random.IntN(1000)), Actor: "unix:root"}
		if kind == 0 {
			op = rulesOperation(uint64(2+random.IntN(3)), rulesWith(usual+strings.Repeat("#", random.IntN(3))))
			op.Actor = "unix:root"
		}
		s := someone()
		if q, _, _, err := c.Prepare(ctx, op, s.name); err == nil {
			_, _ = c.Submit(ctx, "unix:root", q.Statement(Ask), s.sign(q.Statement(Ask)), nil)
			*asked = append(*asked, q)
		}
	case kind < 8:
		q := (*asked)[len(*asked)-1-random.IntN(min(3, len(*asked)))]
		v := Approve
		if random.IntN(20) == 0 {
			v = Reject
		}
		_, _ = c.Vote(ctx, q.ID, v, someone().sign(q.Statement(v)))
	default:
		q := (*asked)[len(*asked)-1-random.IntN(min(4, len(*asked)))]
		if q.Operation.Action == kms.ActionRules {
			for n := range 3 {
				_, _ = c.PutRules(ctx, rulesWith(usual+strings.Repeat("#", n)), "unix:root", "", q.ID)
			}
			return
		}
		op := q.Operation
		op.Approval = q.ID
		grant, err := c.Permit(ctx, op)
		if err != nil {
			return
		}
		done := kms.Item{Key: "done/" + q.ID, Value: []byte(op.Resource)}
		if err := c.registry.Commit(ctx, kms.Transaction{If: grant.If, Put: append(grant.Put, done)}); errors.Is(err, kms.ErrUnavailable) {
			_ = c.registry.Commit(ctx, kms.Transaction{If: grant.If, Put: append(grant.Put, done)}) // who does not know tries again
		}
	}
}

// inspect checks what must always be so.
func inspect(t *testing.T, w *world) {
	t.Helper()
	c := w.control(t, Config{})
	if law, err := c.Law(t.Context()); err != nil || !law.Active {
		t.Fatalf("the rules cannot be read: %v", err)
	}
	items, err := w.memory.List(t.Context(), "done/")
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		id := strings.TrimPrefix(item.Key, "done/")
		used, err := w.memory.Get(t.Context(), requestKey(id))
		if err != nil || used.Revision != item.Revision {
			t.Fatalf("done at %d, its request is of %d: %v", item.Revision, used.Revision, err)
		}
		b, err := c.Export(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		p, err := b.Verify("")
		if err != nil || !p.Approved || b.Request.Closed != StateUsed || len(p.Approvers) < 2 {
			t.Fatalf("done without what it needs: %+v, %v", p, err)
		}
	}
}
