package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// Adoption is the sealing of the plaintext objects that a bucket had before it was
// registered. Gateways do it; this is what they have told, and what keeps a second one
// away. Who has it loses it by being silent for adoptionSilence: two that work at once do
// no harm, as each write is conditional, so the wall clock is good enough for that.
type Adoption struct {
	Bucket    string        `json:"bucket"`
	Space     string        `json:"space"`
	Store     string        `json:"store"`
	StoreName string        `json:"store_name"`
	Owner     string        `json:"owner"`
	State     AdoptionStage `json:"state"`
	Started   time.Time     `json:"started"`
	CutOff    time.Time     `json:"cut_off,omitzero"` // as in Adopting
	Ended     time.Time     `json:"ended,omitzero"`
	Actor     string        `json:"actor"`
	Reason    string        `json:"reason,omitempty"`
	AdoptionOptions
	Told AdoptionState `json:"told"`
	// Trouble is why it does not go on for now, or failed.
	Trouble string `json:"trouble,omitempty"`
	// Runner is at it, and told so last at Beat.
	Runner string    `json:"runner,omitempty"`
	Beat   time.Time `json:"beat,omitzero"`
	// Signed is the AdoptionStatement, when it is done.
	Signed *SignedReport `json:"signed,omitempty"`
}

// AdoptionOptions are how an adoption goes.
type AdoptionOptions struct {
	Rate  uint32 `json:"rate,omitempty"`  // objects a second; 0: as fast as it goes
	Bytes uint64 `json:"bytes,omitempty"` // of plaintext a second; 0: as fast as it goes
	// Leave ends it although there are objects that could not be sealed. Through the
	// gateway nobody can read them then.
	Leave bool `json:"leave,omitempty"`
}

// AdoptionStage says how far an adoption has come.
type AdoptionStage string

// The stages of an adoption.
const (
	AdoptionRunning AdoptionStage = "running"
	AdoptionStopped AdoptionStage = "stopped" // by an administrator; plaintext is served still
	AdoptionStuck   AdoptionStage = "stuck"   // all was visited, and something could not be sealed; served still
	AdoptionDone    AdoptionStage = "done"    // the bucket is sealed-only
	AdoptionFailed  AdoptionStage = "failed"  // it could not begin, and the bucket is not registered
)

// AdoptionState is what gateways have told. Numbers are of objects, unless said.
type AdoptionState struct {
	Position    string            `json:"position,omitempty"`  // all up to this key were visited
	SealedTo    string            `json:"sealed_to,omitempty"` // and all up to this one are sealed
	Sealed      uint64            `json:"sealed"`
	SealedBytes uint64            `json:"sealed_bytes"` // of plaintext
	Already     uint64            `json:"already"`      // found sealed
	Gone        uint64            `json:"gone"`         // deleted meanwhile
	SameETag    uint64            `json:"same_etag"`
	Locked      uint64            `json:"locked"`
	Problems    uint64            `json:"problems"`
	OldVersions uint64            `json:"old_versions"` // plaintext still
	First       []AdoptionProblem `json:"first_problems,omitempty"`
}

// AdoptionProblem is an object that could not be sealed.
type AdoptionProblem struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

// AdoptionStatement is what is signed of an adoption. The KMS has it from the gateways.
type AdoptionStatement struct {
	Chatelaine string `json:"chatelaine"` // adoptionKind
	Adoption
}

const (
	adoptionKind    = "adoption-record/1"
	adoptionSilence = 1500 * time.Millisecond
	// MaxAdoptionProblems is how many problems are kept.
	MaxAdoptionProblems = 20
	maxAdoptionText     = 1024
)

func adoptionPath(bucket string) string { return "adoptions/" + bucket }

// of is the record of a bucket's adoption.
func (a Adoption) of(b Bucket) Adoption {
	a.Bucket, a.Space, a.Store, a.StoreName, a.Owner = b.Name, b.Space, b.Store, b.StoreName, b.Owner
	return a
}

// StartAdoption registers a bucket whose store has it with objects in it, and asks
// gateways to adopt it. Where it is being adopted already, n but for its name does not
// count: one that was stopped or is stuck goes on from where all is sealed. ErrExists for
// a bucket that is not being adopted, and the errors of RegisterBucket.
func (m *Manager) StartAdoption(ctx context.Context, n NewBucket, o AdoptionOptions) (Adoption, error) {
	if o.Rate > maxRate {
		return Adoption{}, fmt.Errorf("kms: adopting bucket %q: %w: rate %d: want at most %d", n.Name, ErrInvalid, o.Rate, maxRate)
	}
	fresh := Adoption{State: AdoptionRunning, Started: time.Now().UTC(), Actor: n.Change.actor(), Reason: n.Change.Reason, AdoptionOptions: o}
	n.Make, n.adoption = false, &fresh
	b, err := m.RegisterBucket(ctx, n)
	if err == nil {
		return fresh.of(b), nil
	}
	if !errors.Is(err, ErrExists) || b.Adopting == nil {
		return Adoption{}, err
	}
	return m.editAdoption(ctx, b.Space, "going on with", func(a *Adoption, _ *Bucket, _ *Transaction) error {
		if a.State != AdoptionRunning {
			a.State, a.Runner, a.Trouble, a.Told.Position = AdoptionRunning, "", "", a.Told.SealedTo
			a.Told.Problems, a.Told.First = 0, nil
		}
		a.AdoptionOptions = o
		return nil
	})
}

// StopAdoption ends the work. StartAdoption goes on with it; plaintext is served still.
func (m *Manager) StopAdoption(ctx context.Context, name string, by Change) (Adoption, error) {
	a, err := m.AdoptionOf(ctx, name)
	if err != nil {
		return Adoption{}, err
	}
	return m.editAdoption(ctx, a.Space, "stopping", func(a *Adoption, b *Bucket, _ *Transaction) error {
		if a.State == AdoptionRunning {
			a.State, a.Runner = AdoptionStopped, ""
			b.note("adoption stopped", by)
		}
		return nil
	})
}

// AdoptionOf is the last adoption of a bucket of this name. ErrNotFound when there was
// none, or another bucket has the name now.
func (m *Manager) AdoptionOf(ctx context.Context, name string) (Adoption, error) {
	err := checkName("bucket", name)
	var s stored[Adoption]
	if err == nil {
		s, err = read[Adoption](ctx, m.registry, adoptionPath(name))
	}
	if err == nil {
		var b stored[Bucket]
		b, err = readMaybe[Bucket](ctx, m.registry, bucketPath(name))
		if err == nil && b.exists() && b.record.Space != s.record.Space {
			err = ErrNotFound
		}
	}
	if err != nil {
		return Adoption{}, fmt.Errorf("kms: finding the adoption of bucket %q: %w", name, err)
	}
	return s.record, nil
}

// Adoptions lists running adoptions, with their buckets. Somebody may be at them.
func (m *Manager) Adoptions(ctx context.Context) ([]Adoption, []Bucket, error) {
	all, err := list[Adoption](ctx, m.registry, adoptionPath(""))
	if err != nil {
		return nil, nil, fmt.Errorf("kms: listing adoptions: %w", err)
	}
	var running []Adoption
	var buckets []Bucket
	for _, s := range all {
		if s.record.State != AdoptionRunning {
			continue
		}
		b, err := m.bucketOf(ctx, s.record.Space)
		if errors.Is(err, ErrNotFound) {
			continue // it was removed
		}
		if err != nil {
			return nil, nil, fmt.Errorf("kms: listing adoptions: %w", err)
		}
		running, buckets = append(running, s.record), append(buckets, b.record)
	}
	return running, buckets, nil
}

// idle says whether nobody is at it, or has not been heard of.
func (a Adoption) idle() bool {
	silent := time.Since(a.Beat)
	return a.Runner == "" || silent > adoptionSilence || silent < -adoptionSilence
}

// errTaken is what a runner is told that is not the adoption's.
func (a Adoption) errTaken(runner string) error {
	switch {
	case a.State != AdoptionRunning:
		return conflict("the adoption is %s", a.State)
	case a.Runner != runner && !a.idle():
		return conflict("another gateway is at it")
	}
	return nil
}

// BeginAdoption lets a bucket be used, with plaintext of up to a time of its store's
// clock. ErrConflict when the adoption is not the runner's.
func (m *Manager) BeginAdoption(ctx context.Context, space, runner string, cutOff time.Time) error {
	_, err := m.editAdoption(ctx, space, "beginning", func(a *Adoption, b *Bucket, t *Transaction) error {
		if err := a.errTaken(runner); err != nil {
			return err
		}
		if cutOff.IsZero() || b.State != BucketCreating {
			return fmt.Errorf("%w: cut-off %v of a bucket that is %s", ErrInvalid, cutOff, b.State)
		}
		a.CutOff, a.Runner, a.Trouble = cutOff.UTC(), "", ""
		b.State, b.Adopting = BucketAdopting, &Adopting{CutOff: cutOff.UTC()}
		b.note("adoption began", Change{Actor: a.Actor, Reason: a.Reason})
		return m.revoke(ctx, t)
	})
	return err
}

// AdoptionReport is what a gateway tells of an adoption.
type AdoptionReport struct {
	Space, Runner string
	State         *AdoptionState // nil: nothing is told
	Ended         bool           // all was visited
	Trouble       string
	Refused       string // the bucket cannot be adopted
}

func (r AdoptionReport) validate() error {
	if len(r.Runner) < 16 || len(r.Runner) > 64 || len(r.Trouble) > maxAdoptionText || len(r.Refused) > maxAdoptionText {
		return fmt.Errorf("%w: a text of an adoption has the wrong length", ErrInvalid)
	}
	if r.State == nil {
		return nil
	}
	if len(r.State.First) > MaxAdoptionProblems {
		return fmt.Errorf("%w: %d problems are told, want at most %d", ErrInvalid, len(r.State.First), MaxAdoptionProblems)
	}
	for _, p := range r.State.First {
		if len(p.Key) > maxAdoptionText || len(p.Text) > maxAdoptionText {
			return fmt.Errorf("%w: a problem of an adoption is too long", ErrInvalid)
		}
	}
	return nil
}

// Adopt takes an adoption over for a runner, and writes down what it tells. Where all
// was visited and nothing is left, the bucket is sealed-only from then on, and the
// statement is signed. ErrConflict when another runner has it, or it was stopped.
func (m *Manager) Adopt(ctx context.Context, r AdoptionReport) (Adoption, Bucket, error) {
	if err := r.validate(); err != nil {
		return Adoption{}, Bucket{}, fmt.Errorf("kms: adopting space %q: %w", r.Space, err)
	}
	var bucket Bucket
	a, err := m.editAdoption(ctx, r.Space, "adopting", func(a *Adoption, b *Bucket, t *Transaction) error {
		if err := a.errTaken(r.Runner); err != nil {
			return err
		}
		err := m.takeIn(ctx, r, a, b, t)
		bucket = *b
		return err
	})
	return a, bucket, err
}

// takeIn changes the records by a report.
func (m *Manager) takeIn(ctx context.Context, r AdoptionReport, a *Adoption, b *Bucket, t *Transaction) error {
	a.Runner, a.Beat, a.Trouble = r.Runner, time.Now().UTC(), r.Trouble
	if r.Trouble != "" {
		a.Runner = ""
	}
	if r.State != nil && b.Adopting != nil {
		a.Told = *r.State
		b.Adopting = &Adopting{CutOff: b.Adopting.CutOff, SealedTo: a.Told.SealedTo}
	}
	switch {
	case r.Refused != "" && b.State == BucketCreating:
		a.State, a.Trouble, a.Runner, a.Ended = AdoptionFailed, r.Refused, "", time.Now().UTC()
	case r.Ended && b.State == BucketAdopting && a.Told.Problems > 0 && !a.Leave:
		a.State, a.Runner = AdoptionStuck, ""
		m.log.Warn("adoption is stuck", zap.String("bucket", b.Name), zap.Uint64("problems", a.Told.Problems))
	case r.Ended && b.State == BucketAdopting:
		a.State, a.Runner, a.Ended = AdoptionDone, "", time.Now().UTC()
		b.State, b.Adopting = BucketActive, nil
		b.note(fmt.Sprintf("adopted: %d objects sealed, %d left", a.Told.Sealed+a.Told.Already, a.Told.Problems), Change{Actor: a.Actor, Reason: a.Reason})
		return errors.Join(m.signAdoption(ctx, a), m.revoke(ctx, t))
	}
	return nil
}

func (m *Manager) signAdoption(ctx context.Context, a *Adoption) error {
	statement, err := json.Marshal(AdoptionStatement{Chatelaine: adoptionKind, Adoption: *a})
	if err != nil {
		return err
	}
	public, signature, err := m.sign(ctx, signedMessage(statement))
	if err == nil {
		a.Signed = &SignedReport{Statement: statement, Key: public, Signature: signature}
		m.log.Info("bucket adopted", zap.String("bucket", a.Bucket), zap.Uint64("sealed", a.Told.Sealed), zap.Uint64("problems", a.Told.Problems))
	}
	return err
}

// editAdoption has f change an adoption and its bucket. A bucket of a failed one goes.
func (m *Manager) editAdoption(ctx context.Context, space, doing string, f func(*Adoption, *Bucket, *Transaction) error) (Adoption, error) {
	var a Adoption
	err := retry(ctx, func() error {
		b, err := m.bucketOf(ctx, space)
		if err != nil {
			return err
		}
		s, err := read[Adoption](ctx, m.registry, adoptionPath(b.record.Name))
		if err == nil && s.record.Space != space {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		a = s.record
		t := Transaction{If: []Condition{s.is, b.is}}
		if err := f(&a, &b.record, &t); err != nil {
			return err
		}
		record, err := put(s.is.Key, a)
		bucket, err2 := put(b.is.Key, b.record)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if t.Put = append(t.Put, record, bucket); a.State == AdoptionFailed {
			return m.refuseAdoption(ctx, b, record)
		}
		return m.registry.Commit(ctx, t)
	})
	if err != nil {
		return Adoption{}, fmt.Errorf("kms: %s the adoption of space %q: %w", doing, space, err)
	}
	return a, nil
}

// refuseAdoption removes a bucket that nobody could use yet, and keeps why.
func (m *Manager) refuseAdoption(ctx context.Context, s stored[Bucket], why Item) error {
	t, err := removal(s)
	if err != nil {
		return err
	}
	t.Put = append(t.Put, why)
	return m.registry.Commit(ctx, t)
}

// VerifyAdoption reads the signed statement of an adoption and checks its signature,
// offline. As with VerifyReport, compare Fingerprint(signed.Key).
func VerifyAdoption(data []byte) (AdoptionStatement, SignedReport, error) {
	var s AdoptionStatement
	signed, err := verifySigned(data)
	if err == nil {
		err = strictly(signed.Statement, &s)
	}
	if err == nil && s.Chatelaine != adoptionKind {
		err = fmt.Errorf("%w: kind %q, want %q", ErrInvalid, s.Chatelaine, adoptionKind)
	}
	if err != nil {
		return AdoptionStatement{}, SignedReport{}, fmt.Errorf("kms: verifying the record of an adoption: %w", err)
	}
	return s, signed, nil
}

// IsAdoption says whether a signed report says of itself to be of an adoption. Nothing
// is verified.
func IsAdoption(data []byte) bool { return kindOf(data) == adoptionKind }
