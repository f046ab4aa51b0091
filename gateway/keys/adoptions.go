package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// ErrAdoptionTaken: another gateway is at this adoption, or it was stopped.
var ErrAdoptionTaken = errors.New("adoption is not this gateway's")

// MaxProblems is how many problems an adoption names; it counts all.
const MaxProblems = 20

// Adoption is a bucket whose plaintext objects are to be sealed, and how far that is.
type Adoption struct {
	Bucket Bucket
	Rate   uint32 // objects a second; 0: as fast as it goes
	Bytes  uint64 // of plaintext a second; 0: as fast as it goes
	AdoptionState
}

// AdoptionState is what gateways have told of an adoption.
type AdoptionState struct {
	// Position: objects up to this key were visited; SealedTo: and all up to this one are
	// sealed. Empty: none.
	Position, SealedTo string
	Counts             AdoptionCounts
	Problems           []AdoptionProblem // the first MaxProblems
}

// AdoptionCounts are numbers of objects, but for SealedBytes.
type AdoptionCounts struct {
	Sealed      uint64 // by the adoption
	SealedBytes uint64 // of plaintext
	Already     uint64 // found sealed: by clients, or by the adoption before it was interrupted
	Gone        uint64 // deleted by clients meanwhile
	SameETag    uint64 // of Sealed: clients see the ETag that it had
	Locked      uint64 // of Sealed: with a retention or a legal hold, which was carried over
	Problems    uint64 // not sealed
	// OldVersions have been plaintext before and are still: nothing can change a version.
	// Known at the end.
	OldVersions uint64
}

// AdoptionProblem is an object that could not be sealed.
type AdoptionProblem struct{ Key, Text string } // Text: at most 300 bytes

// AdoptionProgress is what a gateway tells. Runner is a name that nobody else has, and
// holds the adoption for 1.5 s.
type AdoptionProgress struct {
	Bucket Bucket
	Runner string
	// State is what there is to tell; nil takes the adoption over and tells nothing.
	State *AdoptionState
	// Ended: all objects were visited.
	Ended bool
	// Trouble is why it does not go on for now. Refused is why it cannot begin at all:
	// the bucket is unregistered then.
	Trouble, Refused string
}

// BeginAdoption lets a bucket be used whose adoption the runner has taken over: cutOff
// is the store's time after which nothing of it is plaintext. Nobody has the adoption
// then. It needs a lease. Errors: ErrAdoptionTaken, ErrBucketNotFound, ErrUnavailable.
func (c *Client) BeginAdoption(ctx context.Context, b Bucket, runner string, cutOff time.Time) error {
	_, _, err := leased(ctx, c, "BeginAdoption", func(ctx context.Context, lease string) (*kmsv1.BeginAdoptionResponse, error) {
		return c.mirrors.BeginAdoption(ctx, &kmsv1.BeginAdoptionRequest{
			LeaseId: lease, Space: b.Space.String(), Runner: runner, CutOff: timestamppb.New(cutOff),
		})
	})
	c.edits.next()
	if err != nil {
		return fmt.Errorf("keys: beginning the adoption of bucket %q: %w", b.Name, taken(err))
	}
	return nil
}

// Adopt tells the KMS of an adoption, takes it over where nobody has it, and returns
// what is known of it. It needs a lease. Errors as of BeginAdoption.
func (c *Client) Adopt(ctx context.Context, p AdoptionProgress) (Adoption, error) {
	r := &kmsv1.AdoptRequest{
		Space: p.Bucket.Space.String(), Runner: p.Runner, State: adoptionMessage(p.State),
		Ended: p.Ended, Trouble: p.Trouble, Refused: p.Refused,
	}
	answer, _, err := leased(ctx, c, "Adopt", func(ctx context.Context, lease string) (*kmsv1.AdoptResponse, error) {
		r.LeaseId = lease
		return c.mirrors.Adopt(ctx, r)
	})
	var a Adoption
	if err == nil {
		a, err = adoptionOf(answer.GetAdoption())
	}
	if err != nil {
		return Adoption{}, fmt.Errorf("keys: telling of the adoption of bucket %q: %w", p.Bucket.Name, taken(err))
	}
	return a, nil
}

func taken(err error) error {
	if errors.Is(err, kms.ErrConflict) {
		return fmt.Errorf("%w: %w", ErrAdoptionTaken, err)
	}
	return translate(err, ErrBucketNotFound)
}

func adoptionOf(m *kmsv1.Adoption) (Adoption, error) {
	b, err := bucketOf(m.GetBucket())
	a := Adoption{Bucket: b, Rate: m.GetRate(), Bytes: m.GetBytes()}
	s := m.GetTold()
	a.Position, a.SealedTo = s.GetPosition(), s.GetSealedTo()
	a.Counts = AdoptionCounts{
		Sealed: s.GetSealed(), SealedBytes: s.GetSealedBytes(), Already: s.GetAlready(), Gone: s.GetGone(),
		SameETag: s.GetSameEtag(), Locked: s.GetLocked(), Problems: s.GetProblems(), OldVersions: s.GetOldVersions(),
	}
	for _, p := range s.GetFirstProblems() {
		a.Problems = append(a.Problems, AdoptionProblem{Key: p.GetKey(), Text: p.GetText()})
	}
	return a, err
}

func adoptionMessage(s *AdoptionState) *kmsv1.AdoptionState {
	if s == nil {
		return nil
	}
	c := s.Counts
	out := &kmsv1.AdoptionState{
		Position: s.Position, SealedTo: s.SealedTo, Sealed: c.Sealed, SealedBytes: c.SealedBytes, Already: c.Already, Gone: c.Gone,
		SameEtag: c.SameETag, Locked: c.Locked, Problems: c.Problems, OldVersions: c.OldVersions,
	}
	for _, p := range s.Problems {
		out.FirstProblems = append(out.FirstProblems, &kmsv1.AdoptionProblem{Key: p.Key, Text: p.Text})
	}
	return out
}
