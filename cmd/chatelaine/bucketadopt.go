package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

const adoptHelp = `Takes a bucket of the backend that has plaintext objects. From the first minute they
can be read through the gateway as they are, each time logged and counted, and what is
written is sealed. A gateway then seals the objects in place, one after the other in the
order of their keys: with content type, metadata, tags and locks, and never over what a
client wrote meanwhile. It goes on after it was killed. When all are sealed the bucket is
sealed-only, and the KMS signs a record of it: --json shows it, for "report verify".

What is in the bucket when this begins is believed; the cloud could have changed it. What
is put there as plaintext later by another way than the gateway is refused and reported:
stop everything else that writes to the bucket first.

Objects that cannot be sealed are reported, and readable until they are dealt with: say
the same again then, or with --leave, which gives them up: through the gateway nobody can
read them any more. Older versions cannot be changed by anybody: they stay plaintext in
the cloud, are counted, and readable there alone. Delete them, or have a lifecycle rule
for noncurrent versions do so.

ETags are those of the plaintext unless --etag backend is said: an object of a single PUT
keeps the one that clients know, unless the cloud encrypts with keys of its own. Times of
last modification, storage classes and ACLs are those of a new object.`

// adoptFlags are what `bucket adopt` is told.
type adoptFlags struct {
	request             *kmsv1.StartAdoptionRequest
	epoch               time.Duration
	mebibytes           float64
	stop, status, apart bool
}

func bucketAdoptCommand(a *admin) *cobra.Command {
	f := &adoptFlags{request: &kmsv1.StartAdoptionRequest{Bucket: &kmsv1.RegisterNewBucketRequest{}}}
	cmd := &cobra.Command{
		Use:   "adopt NAME --owner USER [--store-name NAME]",
		Short: "Take a bucket with plaintext objects, and seal them in place",
		Long:  adoptHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error { return a.adopt(ctx, cmd, c, args[0], f) })
		},
	}
	bucketFlags(cmd, f.request.GetBucket(), &f.epoch)
	flags := cmd.Flags()
	_ = flags.Set("etag", string(kms.ETagMD5))
	flags.Lookup("etag").DefValue = string(kms.ETagMD5)
	flags.Uint32Var(&f.request.Rate, "rate", 0, "objects a second at most; 0: as fast as it goes")
	flags.Float64Var(&f.mebibytes, "mib-per-second", 0, "MiB of plaintext a second at most; 0: as fast as it goes")
	flags.BoolVar(&f.request.Leave, "leave", false, "end it although objects are left that cannot be sealed")
	flags.BoolVar(&f.stop, "stop", false, "stop the work; plaintext can be read still, and saying adopt again goes on")
	flags.BoolVar(&f.status, "status", false, "show how far it is")
	flags.BoolVar(&f.apart, "background", false, "do not wait for the end")
	return cmd
}

func (a *admin) adopt(ctx context.Context, cmd *cobra.Command, c *service.Clients, name string, f *adoptFlags) error {
	switch {
	case f.stop:
		answer, err := c.Buckets.StopAdoption(ctx, &kmsv1.StopAdoptionRequest{Name: name, Change: a.change()})
		return a.showAdoption(answer.GetAdoption(), noAdoption(err))
	case f.status:
		answer, err := c.Buckets.GetAdoption(ctx, &kmsv1.GetAdoptionRequest{Name: name})
		return a.showAdoption(answer.GetAdoption(), noAdoption(err))
	case f.mebibytes < 0:
		return usageError{fmt.Errorf("--mib-per-second %v is negative", f.mebibytes)}
	}
	if err := a.startAdoption(ctx, c, name, f); err != nil || f.apart {
		return err
	}
	job, err := awaitAdoption(ctx, cmd.ErrOrStderr(), c, name)
	if err != nil {
		return err
	}
	return a.showAdoption(job, adoptionEnd(job))
}

func noAdoption(err error) error {
	if errors.Is(err, kms.ErrNotFound) {
		return advise(err, "no bucket of this name was ever adopted; `chatelaine bucket list` shows what there is")
	}
	return err
}

func (a *admin) startAdoption(ctx context.Context, c *service.Clients, name string, f *adoptFlags) error {
	b := f.request.GetBucket()
	if b.Name, b.StoreName = name, cmp.Or(b.GetStoreName(), name); b.GetOwner() == "" {
		if _, err := c.Buckets.GetBucket(ctx, &kmsv1.GetBucketRequest{Name: name}); errors.Is(err, kms.ErrNotFound) {
			return usageError{fmt.Errorf("whose is bucket %q to be? Say --owner USER", name)}
		}
		b.Owner = "nobody" // it has one already, if it is being adopted
	}
	b.EpochPeriod, b.Change, f.request.Bytes = durationpb.New(f.epoch), a.change(), uint64(f.mebibytes*(1<<20))
	_, err := c.Buckets.StartAdoption(ctx, f.request)
	if errors.Is(err, kms.ErrExists) {
		return advise(err, "a bucket of the gateway is not adopted: what is in it is sealed. `chatelaine bucket list` shows which one has this name or place")
	}
	return err
}

// adoptLine is the time between two lines of progress.
const adoptLine = 5 * time.Second

// awaitAdoption shows how far it is until it ends. Ending it ends the waiting, and not the
// adoption.
func awaitAdoption(ctx context.Context, out io.Writer, c *service.Clients, name string) (*kmsv1.AdoptionJob, error) {
	var said time.Time
	var trouble string
	for {
		answer, err := c.Buckets.GetAdoption(ctx, &kmsv1.GetAdoptionRequest{Name: name})
		if err != nil {
			return nil, err
		}
		job := answer.GetAdoption()
		if job.GetState() != string(kms.AdoptionRunning) {
			return job, nil
		}
		if t := job.GetTrouble(); t != "" && t != trouble {
			trouble = t
			fmt.Fprintf(out, "it does not go on, and is tried again: %s\n", t)
		}
		if time.Since(said) >= adoptLine {
			said = time.Now()
			fmt.Fprintf(out, "adopting %s: %s\n", name, adoptionPlace(job))
		}
		if err := pause(ctx, lookEvery); err != nil {
			return nil, err
		}
	}
}

func adoptionPlace(j *kmsv1.AdoptionJob) string {
	if j.GetCutOff() == nil {
		return "waiting for a gateway with this backend"
	}
	s := j.GetTold()
	return fmt.Sprintf("%d objects sealed (%d MiB), %d found sealed, %d problems, at %q", s.GetSealed(), s.GetSealedBytes()>>20, s.GetAlready(), s.GetProblems(), s.GetPosition())
}

// adoptionEnd is what there is to do when it ended otherwise than done.
func adoptionEnd(j *kmsv1.AdoptionJob) error {
	switch kms.AdoptionStage(j.GetState()) {
	case kms.AdoptionFailed:
		return fmt.Errorf("bucket %q is not adopted, and not registered: %s", j.GetBucket(), j.GetTrouble())
	case kms.AdoptionStuck:
		return advise(fmt.Errorf("%d objects of bucket %q are not sealed: see above", j.GetTold().GetProblems(), j.GetBucket()),
			"they can still be read. Shorten their metadata, delete them, or upload them through the gateway; then say it again, or with --leave to give them up")
	case kms.AdoptionStopped:
		return advise(fmt.Errorf("the adoption of bucket %q was stopped", j.GetBucket()), "say it again to go on")
	}
	return nil
}

// showAdoption answers the signed record itself with --json, when there is one, and then
// returns the error.
func (a *admin) showAdoption(j *kmsv1.AdoptionJob, err error) error {
	if j == nil {
		return err
	}
	var answer any = j
	if len(j.GetStatement()) > 0 {
		signed := kms.SignedReport{Statement: j.GetStatement(), Key: j.GetKey(), Signature: j.GetSignature()}
		data, encodeErr := json.Marshal(signed)
		if encodeErr == nil {
			_, _, encodeErr = kms.VerifyAdoption(data)
		}
		if encodeErr != nil {
			return encodeErr
		}
		answer = signed
	}
	return errors.Join(a.show(answer, adoptionTables(j)...), err)
}

func adoptionTables(j *kmsv1.AdoptionJob) []table {
	s := j.GetTold()
	t := table{rows: [][]string{
		{"BUCKET", j.GetBucket()},
		{"LIES IN", j.GetStore() + "/" + j.GetStoreName()},
		{"STATE", j.GetState()},
		{"BEGAN", when(j.GetStarted())},
		{"ENDED", when(j.GetEnded())},
		{"SEALED", fmt.Sprintf("%d objects, %d bytes", s.GetSealed(), s.GetSealedBytes())},
		{"WITH THE ETAG THEY HAD", strconv.FormatUint(s.GetSameEtag(), 10)},
		{"FOUND SEALED", fmt.Sprintf("%d (by clients, or before an interruption)", s.GetAlready())},
		{"DELETED MEANWHILE", strconv.FormatUint(s.GetGone(), 10)},
		{"LOCKS CARRIED OVER", strconv.FormatUint(s.GetLocked(), 10)},
		{"NOT SEALED", strconv.FormatUint(s.GetProblems(), 10)},
		{"OLDER VERSIONS, PLAINTEXT STILL", strconv.FormatUint(s.GetOldVersions(), 10)},
	}}
	if j.GetTrouble() != "" {
		t.rows = append(t.rows, []string{"TROUBLE", j.GetTrouble()})
	}
	if len(s.GetFirstProblems()) == 0 {
		return []table{t}
	}
	problems := table{header: []string{"NOT SEALED", "WHY"}}
	for _, p := range s.GetFirstProblems() {
		problems.rows = append(problems.rows, []string{strconv.Quote(p.GetKey()), p.GetText()})
	}
	return []table{t, problems}
}

// verifyAdoption is verifyReport for the record of an adoption.
func (a *admin) verifyAdoption(data []byte, key string) error {
	s, signed, err := kms.VerifyAdoption(data)
	if err != nil {
		return err
	}
	if err := signedBy(signed, key); err != nil {
		return err
	}
	rows := [][]string{
		{"BUCKET", s.Bucket},
		{"LIES IN", s.Store + "/" + s.StoreName},
		{"OWNER", s.Owner},
		{"BY", s.Actor},
		{"REASON", dash(s.Reason)},
		{"PLAINTEXT UNTIL", s.CutOff.UTC().Format(time.DateTime)},
		{"ENDED", s.Ended.UTC().Format(time.DateTime)},
		{"SEALED", fmt.Sprint(s.Told.Sealed + s.Told.Already)},
		{"NOT SEALED", fmt.Sprint(s.Told.Problems)},
		{"OLDER VERSIONS, PLAINTEXT STILL", fmt.Sprint(s.Told.OldVersions)},
	}
	if err := a.show(s, table{rows: rows}); err != nil {
		return err
	}
	if s.Told.Problems > 0 {
		return fmt.Errorf("the signature is right; %d objects were left as they were", s.Told.Problems)
	}
	return nil
}
