package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// bucketCommand is about buckets and their keys.
func bucketCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use:   "bucket",
		Short: "Buckets: create, attach, adopt, copy, list, show, set, rotate, shred",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine bucket --help`")}
		},
	}
	a.bind(cmd)
	cmd.AddCommand(bucketCreateCommand(a), bucketAttachCommand(a), bucketAdoptCommand(a), bucketCopyCommand(a), bucketListCommand(a), bucketShowCommand(a), bucketSetCommand(a), bucketRotateCommand(a), bucketShredCommand(a))
	return cmd
}

// newBucketFlags are what `create` and `attach` share.
func newBucketFlags(cmd *cobra.Command, r *kmsv1.RegisterNewBucketRequest, epoch *time.Duration) {
	bucketFlags(cmd, r, epoch)
	cmd.Flags().BoolVar(&r.Ledger, "rollback-guard", false, "keep a digest of each object's newest version, so that an older one in its place is refused")
	_ = cmd.MarkFlagRequired("owner")
}

func bucketFlags(cmd *cobra.Command, r *kmsv1.RegisterNewBucketRequest, epoch *time.Duration) {
	flags := cmd.Flags()
	flags.StringVar(&r.Owner, "owner", "", "principal that owns it")
	flags.StringVar(&r.Store, "backend", "main", "the backend's name in the gateways' configuration")
	flags.StringVar(&r.StoreName, "store-name", "", "the bucket's name in the backend (default: the same)")
	flags.StringVar(&r.Kek, "kek", "", "key that wraps its bucket keys (default: the KMS's default)")
	flags.StringVar(&r.Profile, "profile", "", "standard, or strict: nothing is cached, each request is a call to the HSM")
	flags.StringVar(&r.Etag, "etag", "", "backend, or md5: ETags are those of the plaintext")
	flags.DurationVar(epoch, "epoch", 0, "age at which its bucket key is replaced (default: the KMS's)")
	flags.Uint64Var(&r.EpochObjects, "epoch-objects", 0, "objects after which its bucket key is replaced, about (default: 2^20)")
}

func bucketCreateCommand(a *admin) *cobra.Command {
	r, epoch := &kmsv1.RegisterNewBucketRequest{}, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "create NAME --owner USER",
		Short: "Make a bucket",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name, r.StoreName = args[0], cmp.Or(r.GetStoreName(), args[0])
			return a.register(cmd, r, epoch)
		},
	}
	newBucketFlags(cmd, r, &epoch)
	return cmd
}

func bucketAttachCommand(a *admin) *cobra.Command {
	r, epoch := &kmsv1.RegisterNewBucketRequest{}, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "attach NAME --owner USER --store-name NAME",
		Short: "Take an empty bucket that the backend has already",
		Long: "One that holds sealed objects of a registry that was lost is for `chatelaine recover`; one that holds plain\n" +
			"objects is for `chatelaine bucket adopt`.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[0]
			return a.register(cmd, r, epoch)
		},
	}
	newBucketFlags(cmd, r, &epoch)
	_ = cmd.MarkFlagRequired("store-name")
	return cmd
}

// makingTakes is how long a gateway may take to make a bucket.
const makingTakes = 30 * time.Second

// register has the KMS register a bucket, and waits until a gateway has made it.
func (a *admin) register(cmd *cobra.Command, r *kmsv1.RegisterNewBucketRequest, epoch time.Duration) error {
	return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
		r.EpochPeriod, r.Change = durationpb.New(epoch), a.change()
		if _, err := c.Buckets.RegisterNewBucket(ctx, r); err != nil {
			if errors.Is(err, kms.ErrExists) {
				return advise(err, "`chatelaine bucket list` shows which one it is")
			}
			return err
		}
		for until := time.Now().Add(makingTakes); time.Now().Before(until); {
			answer, err := c.Buckets.GetBucket(ctx, &kmsv1.GetBucketRequest{Name: r.GetName()})
			if errors.Is(err, kms.ErrNotFound) {
				if r.GetLedger() {
					return fmt.Errorf("backend %q has %q already, and it is not empty, or has, or had, versions, which the rollback guard cannot have: %w", r.GetStore(), r.GetStoreName(), kms.ErrExists)
				}
				return advise(fmt.Errorf("backend %q has %q already, and it is not empty: %w", r.GetStore(), r.GetStoreName(), kms.ErrExists), "choose another --store-name, or empty that one")
			}
			if err != nil {
				return err
			}
			if answer.GetBucket().GetBucket().GetState() == string(kms.BucketActive) {
				return a.show(answer.GetBucket(), bucketsTable([]*kmsv1.BucketDetails{answer.GetBucket()}))
			}
			if err := pause(ctx, lookEvery); err != nil {
				return err
			}
		}
		return advise(fmt.Errorf("bucket %q is registered, and no gateway has made it within %v", r.GetName(), makingTakes),
			"does a gateway with this backend run? Its log says more; it goes on trying")
	})
}

func bucketListCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the buckets of all owners",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Buckets.ListAllBuckets(ctx, &kmsv1.ListAllBucketsRequest{})
				if err != nil {
					return err
				}
				return a.show(answer, bucketsTable(answer.GetBuckets()))
			})
		},
	}
}

func bucketsTable(buckets []*kmsv1.BucketDetails) table {
	t := table{header: []string{"NAME", "STATE", "OWNER", "KEY", "PROFILE", "ETAG", "EPOCH", "GUARD", "BACKEND", "CREATED"}, empty: "There are no buckets."}
	for _, d := range buckets {
		b := d.GetBucket()
		t.rows = append(t.rows, []string{
			b.GetName(), b.GetState(), b.GetOwner(), b.GetKek(), b.GetProfile(), b.GetEtag(), lasting(d.GetEpochPeriod()), dash(b.GetLedger()),
			b.GetStore() + "/" + b.GetStoreName(), when(b.GetCreated()),
		})
	}
	return t
}

func bucketShowCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a bucket's keys and what happened to it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Buckets.GetBucket(ctx, &kmsv1.GetBucketRequest{Name: args[0]})
				if err != nil {
					return unknownBucket(ctx, c, err, args[0])
				}
				return a.showBucket(answer.GetBucket())
			})
		},
	}
}

// showBucket answers three tables for people.
func (a *admin) showBucket(d *kmsv1.BucketDetails) error {
	if a.json {
		return a.show(d, table{})
	}
	keys := table{header: []string{"\nEPOCH", "BUCKET KEY", "WRAPPED UNDER", "CREATED", "COPY IN THE BACKEND", "RECOVERY COPY"}, empty: "\nIt has no keys yet."}
	if d.GetBucket().GetState() == string(kms.BucketShredded) {
		keys.empty = "\nIts keys were destroyed: nothing in it can be opened again."
	}
	for _, k := range d.GetKeys() {
		mirror := map[bool]string{true: "yes", false: "to be written"}[k.GetMirrored()]
		keys.rows = append(keys.rows, []string{
			fmt.Sprint(k.GetEpoch()), k.GetId(), fmt.Sprintf("%s.v%d", k.GetKek().GetKek(), k.GetKek().GetVersion()), when(k.GetCreated()), mirror, dash(k.GetRecovery()),
		})
	}
	events := table{header: []string{"\nEVENT", "AT", "BY", "REASON"}}
	for _, e := range d.GetHistory() {
		events.rows = append(events.rows, []string{e.GetEvent(), when(e.GetAt()), e.GetActor(), dash(e.GetReason())})
	}
	return errors.Join(bucketsTable([]*kmsv1.BucketDetails{d}).write(a.out), keys.write(a.out), events.write(a.out))
}

func bucketSetCommand(a *admin) *cobra.Command {
	var kek, profile, owner, guard string
	var epoch time.Duration
	var objects uint64
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a bucket's key, profile, owner or epochs",
		Long: "--kek wraps its bucket keys under another key: objects stay as they are. The copies in the backend are\n" +
			"written anew within seconds; `chatelaine report show OLD-KEY` tells.\n\n" +
			"--rollback-guard on has a gateway take the bucket's objects in, half a minute later, and waits for it; remove lifecycle\n" +
			"rules before. Each object may be read and written meanwhile, and is guarded once it was taken in. A bucket that has, or\n" +
			"had, versions is refused. off forgets what is known. relearn forgets it too, and believes what the backend has now: after\n" +
			"the registry was restored, or to accept what the guard refuses. It is in the bucket's history, with --reason.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &kmsv1.SetBucketRequest{Name: args[0], Change: a.change()}
			changed := cmd.Flags().Changed
			if changed("kek") {
				r.Kek = &kek
			}
			if changed("profile") {
				r.Profile = &profile
			}
			if changed("owner") {
				r.Owner = &owner
			}
			if changed("epoch") {
				r.EpochPeriod = durationpb.New(epoch)
			}
			if changed("rollback-guard") {
				r.Ledger = &guard
			}
			if changed("epoch-objects") {
				r.EpochObjects = &objects
			}
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error { return a.setBucket(ctx, cmd, c, r) })
		},
	}
	cmd.Flags().StringVar(&kek, "kek", "", "key that wraps its bucket keys")
	cmd.Flags().StringVar(&profile, "profile", "", "standard or strict")
	cmd.Flags().StringVar(&owner, "owner", "", "principal that owns it")
	cmd.Flags().StringVar(&guard, "rollback-guard", "", "on, off or relearn: refuse older versions in the place of the newest")
	cmd.Flags().DurationVar(&epoch, "epoch", 0, "age at which its bucket key is replaced; 0: the KMS's")
	cmd.Flags().Uint64Var(&objects, "epoch-objects", 0, "objects after which its bucket key is replaced, about; 0: 2^20")
	return cmd
}

// setBucket changes a bucket, and moves its keys where they are to be under another KEK.
func (a *admin) setBucket(ctx context.Context, cmd *cobra.Command, c *service.Clients, r *kmsv1.SetBucketRequest) error {
	answer, err := c.Buckets.SetBucket(ctx, r)
	if err != nil {
		return unknownBucket(ctx, c, err, r.GetName())
	}
	if before := answer.GetKekBefore(); before != answer.GetBucket().GetBucket().GetKek() {
		if _, err := c.Jobs.StartRewrap(ctx, &kmsv1.StartRewrapRequest{Kek: before, Change: a.change()}); err != nil {
			return err
		}
		if err := watchJob(ctx, cmd, c, before); err != nil {
			return err
		}
	}
	bucket := answer.GetBucket()
	if r.Ledger != nil && bucket.GetBucket().GetLedger() == string(kms.LedgerLearning) {
		if bucket, err = watchLearning(ctx, cmd, c, r.GetName()); err != nil {
			return err
		}
	}
	return a.show(bucket, bucketsTable([]*kmsv1.BucketDetails{bucket}))
}

// watchLearning waits until the rollback guard of a bucket has taken its objects in.
func watchLearning(ctx context.Context, cmd *cobra.Command, c *service.Clients, name string) (*kmsv1.BucketDetails, error) {
	p := newProgress(cmd.ErrOrStderr(), name)
	defer p.end()
	for {
		answer, err := c.Buckets.GetBucket(ctx, &kmsv1.GetBucketRequest{Name: name})
		if err != nil {
			return nil, err
		}
		d := answer.GetBucket()
		switch d.GetBucket().GetLedger() {
		case string(kms.LedgerOn):
			return d, nil
		case string(kms.LedgerLearning):
		default:
			why := "somebody has switched it off"
			if history := d.GetHistory(); len(history) > 0 {
				why = history[len(history)-1].GetEvent()
			}
			return nil, fmt.Errorf("bucket %q has no rollback guard: %s", name, why)
		}
		note := fmt.Sprintf("%d objects taken in", d.GetLearned())
		if d.GetTrouble() != "" {
			note += "; it is tried again: " + d.GetTrouble()
		}
		p.note(note)
		if err := pause(ctx, lookEvery); err != nil {
			return nil, err
		}
	}
}

func bucketRotateCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate NAME",
		Short: "Seal what is written from now on under a new bucket key",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Buckets.RotateBucket(ctx, &kmsv1.RotateBucketRequest{Name: args[0], Change: a.change()})
				if err != nil {
					return unknownBucket(ctx, c, err, args[0])
				}
				return a.show(answer.GetBucket(), bucketsTable([]*kmsv1.BucketDetails{answer.GetBucket()}))
			})
		},
	}
}

// unknownBucket names buckets that the caller may have meant.
func unknownBucket(ctx context.Context, c *service.Clients, err error, name string) error {
	return unknown(err, name, "chatelaine bucket list", func() []string {
		all, err := c.Buckets.ListAllBuckets(ctx, &kmsv1.ListAllBucketsRequest{})
		if err != nil {
			return nil
		}
		var names []string
		for _, d := range all.GetBuckets() {
			names = append(names, d.GetBucket().GetName())
		}
		return names
	})
}
