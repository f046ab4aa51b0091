package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"chatelaine/backends"
	gatewayconfig "chatelaine/gateway/config"
	"chatelaine/gateway/moving"
	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

const copyHelp = `Copies a bucket's sealed objects to another bucket, on the same backend or another of the
gateway's configuration. Nothing is opened: bytes and header stay as they are, with the
wrapped keys beside them, tags and locks, and each object is read back. This command does
the work, with the credentials of the configuration; killed and said again it goes on,
and later it copies what has changed. The destination is made, or must be empty.

To move a bucket: copy it while it is in use; then forbid writes to it with a policy,
say the same again with --switch, and allow writes. --switch makes gateways look in the new
place when everything is there, and is not done otherwise. Unfinished uploads stay behind,
so they keep a bucket from being switched; so do older versions, unless --leave-versions.
The old place is left as it is: delete it with the cloud's own means when all is well.`

// copyFlags are what `bucket copy` is told.
type copyFlags struct {
	to, config                                    string
	workers                                       int
	change, withoutTags, withoutLocks, noVersions bool
}

func bucketCopyCommand(a *admin) *cobra.Command {
	f := &copyFlags{}
	cmd := &cobra.Command{
		Use:   "copy NAME --to BACKEND[/STORE-NAME] --config FILE",
		Short: "Copy sealed objects to another backend without opening them, and switch to it",
		Long:  copyHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error { return a.copyBucket(ctx, cmd, c, args[0], f) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.to, "to", "", "where to: a backend of the configuration, and the bucket's name there (default: the one it has)")
	flags.StringVar(&f.config, "config", "/etc/chatelaine/gateway.yaml", "the gateway's configuration, which names the backends")
	flags.IntVar(&f.workers, "workers", 8, "objects at once")
	flags.BoolVar(&f.change, "switch", false, "when all is copied, have gateways look there from then on")
	flags.BoolVar(&f.noVersions, "leave-versions", false, "switch although older versions stay behind")
	flags.BoolVar(&f.withoutTags, "without-tags", false, "leave tags behind")
	flags.BoolVar(&f.withoutLocks, "without-locks", false, "leave retentions and legal holds behind")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func (a *admin) copyBucket(ctx context.Context, cmd *cobra.Command, c *service.Clients, name string, f *copyFlags) error {
	answer, err := c.Buckets.GetBucket(ctx, &kmsv1.GetBucketRequest{Name: name})
	if err != nil {
		return unknownBucket(ctx, c, err, name)
	}
	b := answer.GetBucket().GetBucket()
	if b.GetState() != string(kms.BucketActive) {
		return advise(fmt.Errorf("bucket %q is %s", name, b.GetState()), "only a bucket that is active, and so sealed, is copied")
	}
	config, err := gatewayconfig.LoadPartial(f.config)
	if err != nil {
		return usageError{err}
	}
	stores, err := openStores(ctx, config.Backends, zap.NewNop())
	if err != nil {
		return err
	}
	defer func() { _ = closeStores(stores) }() // each write was answered
	from, to, err := f.places(b, stores)
	if err != nil {
		return err
	}
	report, err := moving.Copy(ctx, moving.Config{
		From: from, To: to, Space: b.GetSpace(), Workers: f.workers, WithoutTags: f.withoutTags, WithoutLocks: f.withoutLocks,
		Progress: copyProgress(cmd.ErrOrStderr(), name),
	})
	if err != nil {
		return adviseCopy(err)
	}
	if err := a.show(report, copyTables(from, to, report)...); err != nil {
		return err
	}
	if !report.Clean() {
		return advise(fmt.Errorf("%d objects were not copied: see above", report.Problems),
			"mend that and say it again; --without-tags and --without-locks leave behind what the destination cannot keep")
	}
	if !f.change {
		return nil
	}
	return a.switchBucket(ctx, cmd.ErrOrStderr(), c, b, to, f, report)
}

// places finds both ends.
func (f *copyFlags) places(b *kmsv1.Bucket, stores map[string]backends.Store) (from, to moving.Place, err error) {
	backend, storeName, named := strings.Cut(f.to, "/")
	if !named {
		storeName = b.GetStoreName()
	}
	place := func(backend, storeName string) (moving.Place, error) {
		if stores[backend] == nil {
			return moving.Place{}, usageError{fmt.Errorf("the configuration has no backend %q", backend)}
		}
		return moving.Place{Store: stores[backend], Bucket: storeName, Name: backend + "/" + storeName}, nil
	}
	from, err = place(b.GetStore(), b.GetStoreName())
	to, err2 := place(backend, storeName)
	return from, to, errors.Join(err, err2)
}

func adviseCopy(err error) error {
	switch {
	case errors.Is(err, moving.ErrOccupied):
		return advise(err, "choose another bucket there with --to BACKEND/NAME, or empty that one")
	case errors.Is(err, moving.ErrSame):
		return advise(usageError{err}, "the bucket lies there already: `chatelaine bucket list` shows where")
	}
	return err
}

// copyProgress says now and then how far it is.
func copyProgress(out io.Writer, name string) func(moving.Report) {
	said := time.Now()
	return func(r moving.Report) {
		if time.Since(said) < adoptLine {
			return
		}
		said = time.Now()
		fmt.Fprintf(out, "copying %s: %d objects copied (%d MiB), %d were there, %d problems\n", name, r.Copied, r.CopiedBytes>>20, r.Already+r.Verified, r.Problems)
	}
}

// switchBucket has gateways look in the new place.
func (a *admin) switchBucket(ctx context.Context, out io.Writer, c *service.Clients, b *kmsv1.Bucket, to moving.Place, f *copyFlags, r moving.Report) error {
	switch {
	case r.Uploads > 0:
		return advise(fmt.Errorf("not switched: bucket %q has %d unfinished uploads, which would be lost", b.GetName(), r.Uploads), "have them completed or aborted, and say it again")
	case r.OldVersions > 0 && !f.noVersions:
		return advise(fmt.Errorf("not switched: %d older versions of bucket %q are not copied", r.OldVersions, b.GetName()), "--leave-versions switches without them")
	}
	backend, _, _ := strings.Cut(f.to, "/")
	answer, err := c.Buckets.MoveBucket(ctx, &kmsv1.MoveBucketRequest{Name: b.GetName(), Store: backend, StoreName: to.Bucket, Change: a.change()})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "switched: bucket %s lies in %s/%s now; the old place is left as it is\n", b.GetName(), answer.GetBucket().GetBucket().GetStore(), answer.GetBucket().GetBucket().GetStoreName())
	return nil
}

func copyTables(from, to moving.Place, r moving.Report) []table {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	t := table{rows: [][]string{
		{"FROM", from.Name},
		{"TO", to.Name},
		{"COPIED AND READ BACK", fmt.Sprintf("%d objects, %d bytes", r.Copied, r.CopiedBytes)},
		{"THERE, READ AT BOTH ENDS NOW", number(r.Verified)},
		{"THERE, READ BACK EARLIER", number(r.Already)},
		{"DELETED AS AT THE SOURCE", number(r.Deleted)},
		{"RECORDS OF KEYS", number(r.Records)},
		{"NOT COPIED", number(r.Problems)},
		{"UNFINISHED UPLOADS, LEFT BEHIND", number(r.Uploads)},
		{"OLDER VERSIONS, LEFT BEHIND", number(r.OldVersions)},
	}}
	if len(r.First) == 0 {
		return []table{t}
	}
	problems := table{header: []string{"NOT COPIED", "WHY"}}
	for _, p := range r.First {
		problems.rows = append(problems.rows, []string{strconv.Quote(p.Key), p.Text})
	}
	return []table{t, problems}
}
