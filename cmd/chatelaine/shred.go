package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

const shredHelp = `Destroys the keys of a bucket: in the registry, in all gateways at once (running
transfers are cut), and the copies in the backend. Nothing in it can be opened again,
by anybody, although the objects still lie there. The bucket stays and can be listed,
emptied and deleted by its owner. A key that was its own is planned to be destroyed,
where nothing else needs it and its own settings and rules allow that.

Then a gateway looks at some objects, and the KMS signs a record of who did it, why,
with which approval, and which keys are gone: --json shows it, for "report verify".

It cannot reach backups: one of the registry or of the backend, taken before, has the
wrapped keys still, and whoever has it and the HSM can open what was copied of the
bucket. Delete those, or destroy the KEK.

Said again, the backend is swept again, and the record is made anew.`

// sweepTakes is how long a gateway may take to sweep the backend.
const sweepTakes = 2 * time.Minute

func bucketShredCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "shred NAME",
		Short: "Destroy a bucket's keys, so that nothing in it can be opened again",
		Long:  shredHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error { return a.shred(ctx, cmd, c, args[0]) })
		},
	}
}

func (a *admin) shred(ctx context.Context, cmd *cobra.Command, c *service.Clients, name string) error {
	if _, err := c.Buckets.GetBucket(ctx, &kmsv1.GetBucketRequest{Name: name}); err != nil {
		return unknownBucket(ctx, c, err, name)
	}
	if err := a.confirmName(cmd, name); err != nil {
		return err
	}
	answer, err := c.Buckets.ShredBucket(ctx, &kmsv1.ShredBucketRequest{Name: name, Change: a.change()})
	if err != nil {
		return err
	}
	if _, err := inEffect(ctx, c, answer.GetEffect(), cmd.ErrOrStderr()); err != nil {
		return err
	}
	signed, err := awaitShred(ctx, c, name)
	if err != nil {
		return err
	}
	return a.showShred(signed)
}

// confirmName has a person type the name of what cannot be brought back.
func (a *admin) confirmName(cmd *cobra.Command, name string) error {
	if a.yes {
		return nil
	}
	question := fmt.Sprintf("Nobody can ever open the objects of bucket %q again.", name)
	if !isTerminal(cmd.InOrStdin()) {
		return advise(usageError{errors.New(question)}, "say --yes to do it; there is no terminal to ask on")
	}
	fmt.Fprint(cmd.ErrOrStderr(), question+" To do it, type its name: ")
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is no
	if strings.TrimSpace(answer) != name {
		return errors.New("not done: that is not its name")
	}
	return nil
}

// awaitShred waits until the backend was swept, and does not believe the record unless
// its signature is right. Ending it ends the waiting, and not the sweep.
func awaitShred(ctx context.Context, c *service.Clients, name string) (kms.SignedReport, error) {
	var problem string
	for until := time.Now().Add(sweepTakes); time.Now().Before(until); {
		answer, err := c.Buckets.GetShred(ctx, &kmsv1.GetShredRequest{Name: name})
		if err != nil {
			return kms.SignedReport{}, err
		}
		if answer.GetState() == string(kms.ShredDone) {
			signed := kms.SignedReport{Statement: answer.GetStatement(), Key: answer.GetKey(), Signature: answer.GetSignature()}
			data, err := json.Marshal(signed)
			if err == nil {
				_, _, err = kms.VerifyShred(data)
			}
			return signed, err
		}
		if problem = answer.GetProblem(); problem != "" {
			break
		}
		if err := pause(ctx, lookEvery); err != nil {
			return kms.SignedReport{}, err
		}
	}
	if problem == "" {
		problem = fmt.Sprintf("no gateway has swept the backend within %v", sweepTakes)
	}
	return kms.SignedReport{}, advise(fmt.Errorf("the keys of bucket %q are destroyed, but copies of them may be left in the backend: %s", name, problem),
		"does a gateway with this backend run? It goes on trying; say the same again later for the signed record")
}

// showShred answers the signed record itself with --json.
func (a *admin) showShred(signed kms.SignedReport) error {
	var s kms.ShredStatement
	if err := json.Unmarshal(signed.Statement, &s); err != nil {
		return fmt.Errorf("reading the record of a shredding: %w", err)
	}
	return a.show(signed, shredTable(s))
}

func shredTable(s kms.ShredStatement) table {
	t := table{rows: [][]string{
		{"BUCKET", s.Bucket},
		{"BACKEND", s.Store + "/" + s.StoreName},
		{"OWNER", s.Owner},
		{"SHREDDED", s.Shredded.UTC().Format("2006-01-02 15:04:05")},
		{"BY", s.Actor},
		{"REASON", dash(s.Reason)},
		{"APPROVAL", dash(s.Approval)},
		{"KEYS DESTROYED", fmt.Sprint(s.KeyCount)},
		{"KEY " + s.KEK.Name, dash(s.KEK.Outcome)},
	}}
	if w := s.Sweep; w != nil {
		t.rows = append(t.rows, []string{"COPIES DELETED", fmt.Sprint(w.Mirrors)},
			[]string{"SAMPLES", fmt.Sprintf("%d of %d objects: none names a key that exists", len(w.Samples), w.Seen)})
	}
	return t
}

// verifyShred is verifyReport for the record of a shredding.
func (a *admin) verifyShred(data []byte, key string) error {
	s, signed, err := kms.VerifyShred(data)
	if err != nil {
		return err
	}
	if err := signedBy(signed, key); err != nil {
		return err
	}
	return a.show(s, shredTable(s))
}
