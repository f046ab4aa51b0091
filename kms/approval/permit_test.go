package approval

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/kms"
)

func TestWithoutRulesEverythingIsPermitted(t *testing.T) {
	w := newWorld(t)
	if err := w.do(t, destroy(), Request{}); err != nil {
		t.Error(err)
	}
	if err := w.Usable(t.Context(), "secret"); err != nil {
		t.Error(err)
	}
	_, _, _, err := w.Prepare(t.Context(), destroy(), "alice")
	wantErr(t, err, kms.ErrNotFound, "no ceremony")
}

func TestAGrantFromBeforeTheCeremonyDoesNotOutliveIt(t *testing.T) {
	w := newWorld(t)
	grant, err := w.Permit(t.Context(), destroy())
	if err != nil {
		t.Fatal(err)
	}
	w.found(t, rulesWith(usual))
	err = w.memory.Commit(t.Context(), kms.Transaction{If: grant.If, Put: []kms.Item{{Key: "x"}}})
	wantErr(t, err, kms.ErrConflict)
}

func TestAnApprovedOperationIsDoneOnce(t *testing.T) {
	w := founded(t, usual)
	op := destroy()
	_, err := w.Permit(t.Context(), op)
	var needed *NeededError
	if !errors.As(err, &needed) || Differs(needed.Operation, op) != "" {
		t.Fatalf("got %v", err)
	}
	wantErr(t, err, kms.ErrApproval, "1 of legal and 2 of security", "1h0m0s of waiting")

	q := w.ask(t, "eve", op)
	wantErr(t, w.do(t, op, q), kms.ErrApproval, "pending", "nobody has approved")
	w.approve(t, q, "alice", "dave")
	wantErr(t, w.do(t, op, q), kms.ErrApproval, "pending", "approved by alice, dave")
	w.approve(t, q, "bob")
	wantErr(t, w.do(t, op, q), kms.ErrApproval, "waiting", "11:00:00 UTC")
	w.hands.pass(time.Hour)
	if err := w.do(t, op, q); err != nil {
		t.Fatal(err)
	}
	wantErr(t, w.do(t, op, q), kms.ErrApproval, "used", "good for once")
}

func TestAnApprovalPermitsNothingElse(t *testing.T) {
	changes := map[string]func(*kms.Operation){
		"action":         func(o *kms.Operation) { o.Action = kms.ActionShred },
		"resource":       func(o *kms.Operation) { o.Resource = "key/main.v2" },
		`param "report"`: func(o *kms.Operation) { o.Params = map[string]string{"report": "r2"} },
		`param "force"`:  func(o *kms.Operation) { o.Params = map[string]string{"report": "r1", "force": ""} },
		"actor":          func(o *kms.Operation) { o.Actor = "unix:mallory" },
		"reason":         func(o *kms.Operation) { o.Reason = "for fun" },
		"param":          func(o *kms.Operation) { o.Params = nil },
	}
	w := founded(t, usual)
	q := w.ask(t, "eve", destroy())
	w.approve(t, q, "alice", "bob", "dave")
	w.hands.pass(time.Hour)
	for field, change := range changes {
		op := destroy()
		change(&op)
		wantErr(t, w.do(t, op, q), kms.ErrApproval, "another "+field)
	}
	if err := w.do(t, destroy(), q); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

func TestRefusedVotes(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "alice", destroy())
	w.approve(t, q, "bob")
	good := q.Statement(Approve)
	flipped := []byte(person("carol").sign(good))
	flipped[len(flipped)-60] ^= 1
	other := q
	other.Operation.Resource = "key/other.v1"
	elsewhere := q
	elsewhere.Instance = strings.Repeat("0", 32)
	tests := map[string]struct {
		verdict   Verdict
		signature string
		want      error
		text      string
	}{
		"own approval":        {Approve, person("alice").sign(good), kms.ErrDenied, "whoever asks cannot approve"},
		"wrong person":        {Approve, person("eve").sign(good), kms.ErrDenied, "eve is in no such group"},
		"unknown key":         {Approve, person("mallory").sign(good), kms.ErrDenied, "belongs to nobody"},
		"twice":               {Approve, person("bob").sign(good), kms.ErrExists, "already"},
		"other namespace":     {Approve, person("carol").signAs(good, "git"), kms.ErrInvalid, `namespace "git"`},
		"rejection as yes":    {Approve, person("carol").sign(q.Statement(Reject)), kms.ErrDenied, "not over this statement"},
		"asking as yes":       {Approve, person("carol").sign(q.Statement(Ask)), kms.ErrDenied, "not over this statement"},
		"of another request":  {Approve, person("carol").sign(other.Statement(Approve)), kms.ErrDenied, "not over this statement"},
		"of another registry": {Approve, person("carol").sign(elsewhere.Statement(Approve)), kms.ErrDenied, "not over this statement"},
		"flipped":             {Approve, string(flipped), kms.ErrDenied, ""},
		"no signature":        {Approve, "yes", kms.ErrInvalid, "no SSH signature"},
		"no verdict":          {"maybe", person("carol").sign(q.Statement("maybe")), kms.ErrInvalid, "verdict"},
		"stranger's no":       {Reject, person("eve").sign(q.Statement(Reject)), kms.ErrDenied, ""},
	}
	for name, test := range tests {
		_, err := w.Vote(t.Context(), q.ID, test.verdict, test.signature)
		if !errors.Is(err, test.want) && name != "flipped" || err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: got %v, want %v with %q", name, err, test.want, test.text)
		}
	}
	_, s, err := w.Request(t.Context(), q.ID)
	if err != nil || !slices.Equal(s.Approvers, []string{"bob"}) || s.State != StatePending {
		t.Errorf("got %v %s, %v", s.Approvers, s.State, err)
	}
}

func TestOneRejectionIsFinal(t *testing.T) {
	for name, approvals := range map[string][]string{"pending": {"bob"}, "approved": {"alice", "bob", "dave"}} {
		t.Run(name, func(t *testing.T) {
			w := founded(t, usual)
			q := w.ask(t, "eve", destroy())
			w.approve(t, q, approvals...)
			if s, err := w.cast(t.Context(), "carol", Reject, q); err != nil || s.State != StateRejected {
				t.Fatalf("got %s, %v", s.State, err)
			}
			w.hands.pass(time.Hour)
			wantErr(t, w.do(t, destroy(), q), kms.ErrApproval, "carol rejected it")
			_, err := w.cast(t.Context(), "carol", Approve, q)
			wantErr(t, err, kms.ErrInvalid, "rejected")
		})
	}
}

func TestWhoAskedCanTakeItBack(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "eve", destroy())
	if s, err := w.cast(t.Context(), "eve", Reject, q); err != nil || s.State != StateRejected {
		t.Errorf("got %s, %v", s.State, err)
	}
}

func TestRequestsAndApprovalsExpire(t *testing.T) {
	w := founded(t, usual)
	late, op := w.ask(t, "eve", destroy()), destroy()
	op.Reason = "another"
	inTime := w.ask(t, "eve", op)
	w.approve(t, inTime, "alice", "bob", "dave")
	w.hands.pass(3*time.Hour - time.Nanosecond)
	if _, s, err := w.Request(t.Context(), inTime.ID); err != nil || s.State != StateApproved {
		t.Errorf("got %s, %v", s.State, err)
	}
	w.hands.pass(time.Nanosecond)
	wantErr(t, w.do(t, op, inTime), kms.ErrApproval, "expired")
	w.hands.pass(7 * time.Hour)
	_, err := w.cast(t.Context(), "alice", Approve, late)
	wantErr(t, err, kms.ErrInvalid, "expired", "no quorum until")
	// What was seen to be over is so for ever, whatever the clock says later.
	if err := w.expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.hands.wall = w.hands.wall.Add(-9 * time.Hour)
	restarted := w.control(t, Config{})
	op.Approval = inTime.ID
	wantErr(t, do(t.Context(), restarted, w.memory, op), kms.ErrApproval, "expired")
}

func TestClockJumpsNeitherOpenNorProlong(t *testing.T) {
	ready := func(t *testing.T) (*world, Request) {
		w := founded(t, usual)
		q := w.ask(t, "eve", destroy())
		w.approve(t, q, "alice", "bob", "dave")
		return w, q
	}
	t.Run("forward", func(t *testing.T) {
		w, q := ready(t)
		w.hands.jump(time.Hour)
		wantErr(t, w.do(t, destroy(), q), kms.ErrApproval, "waiting")
		w.hands.pass(time.Hour)
		if err := w.do(t, destroy(), q); err != nil {
			t.Error(err)
		}
	})
	t.Run("back", func(t *testing.T) {
		w, q := ready(t)
		w.hands.pass(3 * time.Hour)
		w.hands.jump(-90 * time.Minute)
		wantErr(t, w.do(t, destroy(), q), kms.ErrApproval, "expired")
	})
	t.Run("without a wait nothing waits", func(t *testing.T) {
		w := founded(t, usual)
		for i, jump := range []time.Duration{time.Hour, -3 * time.Hour} {
			w.hands.jump(jump)
			op := kms.Operation{Action: kms.ActionUnblock, Resource: "key/main", Actor: "unix:root", Reason: fmt.Sprint(i)}
			q := w.ask(t, "eve", op)
			w.approve(t, q, "alice", "bob")
			if err := w.do(t, op, q); err != nil {
				t.Errorf("after a jump of %v: %v", jump, err)
			}
		}
	})
	t.Run("back over a restart", func(t *testing.T) {
		w, q := ready(t)
		w.hands.jump(-time.Hour)
		op := destroy()
		op.Approval = q.ID
		wantErr(t, do(t.Context(), w.control(t, Config{}), w.memory, op), kms.ErrApproval, "in the future")
	})
}

func TestARequestOfAnotherTimeIsNotTaken(t *testing.T) {
	w := founded(t, usual)
	q, _, _, err := w.Prepare(t.Context(), destroy(), "eve")
	if err != nil {
		t.Fatal(err)
	}
	longer := q
	longer.Expires = q.Expires.Add(time.Hour)
	wantErr(t, w.submitAs(t, "eve", longer), kms.ErrInvalid, "another time than the rules")
	for _, off := range []time.Duration{-6 * time.Minute, 6 * time.Minute} {
		moved := q
		moved.Created, moved.Expires = q.Created.Add(off), q.Expires.Add(off)
		wantErr(t, w.submitAs(t, "eve", moved), kms.ErrInvalid, "not now")
	}
	if err := w.submitAs(t, "eve", q); err != nil {
		t.Fatal(err)
	}
	wantErr(t, w.submitAs(t, "eve", q), kms.ErrConflict)
}

func (w *world) submitAs(t *testing.T, name string, q Request) error {
	t.Helper()
	statement := q.Statement(Ask)
	_, err := w.Submit(t.Context(), q.Operation.Actor, statement, person(name).sign(statement), nil)
	return err
}

func TestWhoAsksMustBeKnown(t *testing.T) {
	w := founded(t, usual)
	known := destroy()
	known.Actor = "cn-eve"
	tests := map[string]struct {
		op   kms.Operation
		as   string
		want string
	}{
		"nobody":           {destroy(), "", "no person in the rules"},
		"not in the rules": {destroy(), "mallory", `called "mallory"`},
		"somebody else":    {known, "alice", "cannot ask as"},
	}
	for name, test := range tests {
		_, _, _, err := w.Prepare(t.Context(), test.op, test.as)
		if !errors.Is(err, kms.ErrDenied) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	q, signed, _, err := w.Prepare(t.Context(), known, "")
	if err != nil || signed || q.Requester != "eve" {
		t.Fatalf("%q, signed %t, %v", q.Requester, signed, err)
	}
	if _, err := w.Submit(t.Context(), "cn-eve", q.Statement(Ask), "", nil); err != nil {
		t.Error(err)
	}
	_, err = w.Submit(t.Context(), "cn-bob", q.Statement(Ask), "", nil)
	wantErr(t, err, kms.ErrDenied, "you are")
	unsigned, _, _, err := w.Prepare(t.Context(), destroy(), "eve")
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Submit(t.Context(), "unix:root", unsigned.Statement(Ask), "", nil)
	wantErr(t, err, kms.ErrDenied, "has to sign")
	wantErr(t, w.submitAs(t, "bob", unsigned), kms.ErrDenied, `"bob" signed the request`)
}

func TestTheSameRequestIsNotMadeTwice(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "eve", destroy())
	again, _, found, err := w.Prepare(t.Context(), destroy(), "eve")
	if err != nil || !found || again.ID != q.ID {
		t.Errorf("found %t %q, %v", found, again.ID, err)
	}
}

func TestChangedRulesMakeRequestsStale(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "eve", destroy())
	w.approve(t, q, "alice", "bob", "dave")
	w.hands.pass(time.Hour)
	op := destroy()
	op.Approval = q.ID
	grant, err := w.Permit(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	w.change(t, rulesWith(strings.Replace(usual, "wait: 1h", "wait: 2h", 1)))
	err = w.memory.Commit(t.Context(), kms.Transaction{If: grant.If, Put: grant.Put})
	wantErr(t, err, kms.ErrConflict)
	wantErr(t, w.do(t, destroy(), q), kms.ErrApproval, "stale", "rules were changed")
	_, err = w.cast(t.Context(), "carol", Approve, q)
	wantErr(t, err, kms.ErrInvalid, "stale")
}

// change puts new rules, as eve, with alice and bob.
func (w *world) change(t *testing.T, text []byte) uint64 {
	t.Helper()
	_, err := w.PutRules(t.Context(), text, "unix:root", "because", "")
	var needed *NeededError
	if !errors.As(err, &needed) {
		t.Fatalf("got %v", err)
	}
	q := w.ask(t, "eve", needed.Operation)
	w.approve(t, q, "alice", "bob")
	number, err := w.PutRules(t.Context(), text, "unix:root", "because", q.ID)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func TestOneApprovalServesOneOfManyConcurrentUsers(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "eve", destroy())
	w.approve(t, q, "alice", "bob", "dave")
	w.hands.pass(time.Hour)
	op := destroy()
	op.Approval = q.ID
	var wg sync.WaitGroup
	results := make([]error, 16)
	for i := range results {
		c := w.control(t, Config{})
		wg.Go(func() { results[i] = do(t.Context(), c, w.memory, op) })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, kms.ErrConflict) && !errors.Is(err, kms.ErrApproval) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d did it", won)
	}
}

func TestConcurrentApprovalsAllCount(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "eve", destroy())
	var wg sync.WaitGroup
	for _, name := range []string{"alice", "bob", "dave"} {
		wg.Go(func() {
			if _, err := w.cast(t.Context(), name, Approve, q); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, s, err := w.Request(t.Context(), q.ID); err != nil || s.State != StateWaiting {
		t.Errorf("got %s, %v", s.State, err)
	}
}

// TestFewerThanTheQuorumNeverPermit casts random votes, in random order, with every
// kind of signature, by the requester too, through several processes, and compares with
// what a plain count of distinct people says.
func TestFewerThanTheQuorumNeverPermit(t *testing.T) {
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	w := founded(t, usual)
	permitted := 0
	for round := range 60 {
		op := kms.Operation{Action: kms.ActionUnblock, Resource: "key/main", Actor: "unix:root", Reason: fmt.Sprint(round)}
		asker := staff()[random.IntN(len(staff()))]
		q := w.ask(t, asker, op)
		yes := make(map[string]bool)
		rejected := false
		for range random.IntN(7) {
			name, v := staff()[random.IntN(len(staff()))], Approve
			if random.IntN(12) == 0 {
				v = Reject
			}
			signed := v
			if random.IntN(4) == 0 {
				signed = []Verdict{Ask, Approve, Reject}[random.IntN(3)]
			}
			_, err := w.Vote(t.Context(), q.ID, v, person(name).sign(q.Statement(signed)))
			security := name != "dave" && name != "eve"
			if err == nil && v == Approve {
				if !security || name == asker || signed != v {
					t.Fatalf("round %d: the approval of %s was taken", round, name)
				}
				yes[name] = true
			}
			rejected = rejected || err == nil && v == Reject
		}
		err := w.do(t, op, q)
		if want := len(yes) >= 2 && !rejected; (err == nil) != want {
			t.Fatalf("round %d: approved by %v, rejected %t: got %v", round, yes, rejected, err)
		}
		if err == nil {
			permitted++
			wantErr(t, w.do(t, op, q), kms.ErrApproval)
		}
	}
	if permitted == 0 {
		t.Error("nothing was ever permitted: the test shows nothing")
	}
}

func TestWhatNoRuleMentions(t *testing.T) {
	w := founded(t, usual)
	tests := map[kms.Action]bool{
		kms.ActionBlock: true, kms.ActionSet: true, kms.ActionShred: false,
		kms.ActionPolicy: false, kms.ActionRules: false, kms.ActionUnblock: false, "key.new": false,
	}
	for action, free := range tests {
		_, err := w.Permit(t.Context(), kms.Operation{Action: action, Resource: "x", Actor: "unix:root"})
		if (err == nil) != free {
			t.Errorf("%s: got %v, want free %t", action, err, free)
		}
	}
}

func TestOnlyRequestersMayAsk(t *testing.T) {
	w := founded(t, `
  - {actions: [rules.put], quorum: {security: 2}}
  - {actions: [key.block], requesters: [legal], quorum: {}}
  - {actions: [key.unblock], requesters: [legal], quorum: {security: 1}}
`)
	block := kms.Operation{Action: kms.ActionBlock, Resource: "key/main", Actor: "cn-eve"}
	_, err := w.Permit(t.Context(), block)
	wantErr(t, err, kms.ErrApproval, "only legal may ask")
	q, _, _, err := w.Prepare(t.Context(), block, "")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, w.submitAs(t, "eve", q), kms.ErrDenied, "may not ask")
	// dave signs that it is he; nobody else need agree.
	block.Actor = "unix:root"
	if err := w.do(t, block, w.ask(t, "dave", block)); err != nil {
		t.Error(err)
	}
}

func TestTooManyPendingRequestsAreRefused(t *testing.T) {
	w := founded(t, usual)
	op := kms.Operation{Action: kms.ActionUnblock, Resource: "key/main", Actor: "cn-eve"}
	var err error
	for i := 0; i <= maxPending && err == nil; i++ {
		op.Reason = fmt.Sprint(i)
		var q Request
		if q, _, _, err = w.Prepare(t.Context(), op, ""); err == nil {
			_, err = w.Submit(t.Context(), op.Actor, q.Statement(Ask), "", nil)
		}
	}
	wantErr(t, err, kms.ErrDenied, "200")
}

func TestAnAttachmentIsWhatTheRequestIsAbout(t *testing.T) {
	w := founded(t, usual)
	text := []byte("permit(...)")
	op := kms.Operation{Action: kms.ActionPolicy, Resource: "policy", Params: map[string]string{"digest": Digest(text)}, Actor: "cn-eve"}
	q, _, _, err := w.Prepare(t.Context(), op, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Submit(t.Context(), op.Actor, q.Statement(Ask), "", []byte("forbid(...)"))
	wantErr(t, err, kms.ErrInvalid, "not the one")
	if _, err = w.Submit(t.Context(), op.Actor, q.Statement(Ask), "", text); err != nil {
		t.Fatal(err)
	}
	if r, _, err := w.Request(t.Context(), q.ID[:8]); err != nil || string(r.Attachment) != string(text) {
		t.Errorf("got %q, %v", r.Attachment, err)
	}
}

func TestRequestsAreFoundByTheBeginningOfTheirID(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "eve", destroy())
	if _, s, err := w.Request(t.Context(), q.ID[:4]); err != nil || s.Request.ID != q.ID {
		t.Errorf("got %v", err)
	}
	for id, want := range map[string]error{"": kms.ErrInvalid, q.ID[:3]: kms.ErrInvalid, "../x": kms.ErrInvalid, strings.Repeat("0", 32): kms.ErrNotFound} {
		_, _, err := w.Request(t.Context(), id)
		wantErr(t, err, want)
	}
	list, err := w.Requests(t.Context(), false)
	if err != nil || len(list) != 1 {
		t.Errorf("got %d, %v", len(list), err)
	}
}

func TestAForgedRecordPermitsNothing(t *testing.T) {
	w := founded(t, usual)
	op := destroy()
	q := w.ask(t, "eve", op)
	w.approve(t, q, "alice", "bob", "dave")
	w.hands.pass(time.Hour)
	key := requestKey(q.ID)
	item, err := w.memory.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := decode[Record](item)
	if err != nil {
		t.Fatal(err)
	}
	altered := q
	altered.Operation.Resource = "key/other.v1"
	tests := map[string]func(*Record) kms.Operation{
		"another operation": func(r *Record) kms.Operation {
			r.Statement = string(altered.Statement(Ask))
			r.Asked = person("eve").sign(altered.Statement(Ask))
			return altered.Operation
		},
		"a vote less":  func(r *Record) kms.Operation { r.Votes = r.Votes[1:]; return op },
		"a vote twice": func(r *Record) kms.Operation { r.Votes[0] = r.Votes[1]; return op },
		"a vote by a nobody": func(r *Record) kms.Operation {
			r.Votes[0].Signature = person("mallory").sign(q.Statement(Approve))
			return op
		},
		"own vote": func(r *Record) kms.Operation {
			r.Votes[0].Signature = person("eve").sign(q.Statement(Approve))
			return op
		},
		"nobody asked":   func(r *Record) kms.Operation { r.Asked = ""; return op },
		"no quorum time": func(r *Record) kms.Operation { r.Quorum = nil; return op },
		"unreadable":     func(r *Record) kms.Operation { r.Statement += " "; return op },
	}
	for name, forge := range tests {
		forged := whole
		forged.Votes = slices.Clone(whole.Votes)
		wanted := forge(&forged)
		wanted.Approval = q.ID
		item, err := put(key, forged)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.memory.Commit(t.Context(), kms.Transaction{Put: []kms.Item{item}}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Permit(t.Context(), wanted); !errors.Is(err, kms.ErrApproval) {
			t.Errorf("%s: got %v, want ErrApproval", name, err)
		}
	}
}
