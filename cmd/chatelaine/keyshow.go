package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

func keyListCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Keys.ListKEKs(ctx, &kmsv1.ListKEKsRequest{})
				if err != nil {
					return err
				}
				return a.show(answer, keysTable(answer))
			})
		},
	}
}

func keysTable(answer *kmsv1.ListKEKsResponse) table {
	t := table{header: []string{"NAME", "STATE", "PRIMARY", "ROTATED", "EVERY", "PROVIDER"}, empty: "There are no keys."}
	for _, k := range answer.GetKeks() {
		name := k.GetName()
		if name == answer.GetDefaultKek() {
			name += " (default)"
		}
		t.rows = append(t.rows, []string{
			name, k.GetState(), number(k.GetPrimary()), when(k.GetRotated()), lasting(k.GetAutoRotatePeriod()), k.GetProvider(),
		})
	}
	return t
}

// number shows a version, "-" for none.
func number(n uint32) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(n), 10)
}

func keyShowCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a key, its versions and what happened to them",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Keys.GetKEK(ctx, &kmsv1.GetKEKRequest{Name: args[0]})
				if err != nil {
					return unknownKey(ctx, c, err, args[0])
				}
				k := answer.GetKek()
				return a.show(k, settingsTable(k), versionsTable(k), historyTable(k))
			})
		},
	}
}

func settingsTable(k *kmsv1.KEK) table {
	return table{rows: [][]string{
		{"name", k.GetName()},
		{"state", k.GetState()},
		{"provider", k.GetProvider()},
		{"auto_rotate_period", lasting(k.GetAutoRotatePeriod())},
		{"min_decryption_version", number(k.GetMinDecryptionVersion())},
		{"deletion_allowed", strconv.FormatBool(k.GetDeletionAllowed())},
		{"waiting_period", lasting(k.GetWaitingPeriod())},
	}}
}

func versionsTable(k *kmsv1.KEK) table {
	t := table{header: []string{"VERSION", "STATE", "CREATED", "MECHANISM", "DESTROYED NOT BEFORE"}}
	for _, v := range k.GetVersions() {
		name := number(v.GetNumber())
		if v.GetNumber() == k.GetPrimary() {
			name += " (primary)"
		}
		t.rows = append(t.rows, []string{name, v.GetState(), when(v.GetCreated()), dash(v.GetMechanism()), when(v.GetDestroyAt())})
	}
	return t
}

// historyTable is what happened to a key and its versions, in order of time.
func historyTable(k *kmsv1.KEK) table {
	type line struct {
		version uint32
		*kmsv1.KeyEvent
	}
	var lines []line
	for _, e := range k.GetHistory() {
		lines = append(lines, line{0, e})
	}
	for _, v := range k.GetVersions() {
		for _, e := range v.GetHistory() {
			lines = append(lines, line{v.GetNumber(), e})
		}
	}
	slices.SortStableFunc(lines, func(x, y line) int { return x.GetAt().AsTime().Compare(y.GetAt().AsTime()) })
	t := table{header: []string{"TIME (UTC)", "VERSION", "EVENT", "STATE", "BY", "REASON"}}
	for _, l := range lines {
		t.rows = append(t.rows, []string{
			when(l.GetAt()), number(l.version), l.GetEvent(), dash(l.GetState()), l.GetActor(), dash(l.GetReason()),
		})
	}
	return t
}

func keyNeedsCommand(a *admin) *cobra.Command {
	var version uint32
	cmd := &cobra.Command{
		Use:   "needs NAME",
		Short: "List what would be lost with a key or a version of it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Keys.NeedsOfKEK(ctx, &kmsv1.NeedsOfKEKRequest{Name: args[0], Version: version})
				if err != nil {
					return unknownKey(ctx, c, err, args[0])
				}
				return a.show(answer, needsTable(answer))
			})
		},
	}
	cmd.Flags().Uint32Var(&version, "version", 0, "of this version alone")
	return cmd
}

func needsTable(answer *kmsv1.NeedsOfKEKResponse) table {
	t := table{header: []string{"WHAT", "VERSION", "BUCKET", "ID", "RECOVERY COPY"}, empty: "Nothing needs it."}
	for _, n := range answer.GetNeeds() {
		t.rows = append(t.rows, []string{n.GetKind(), number(n.GetVersion()), dash(n.GetBucket()), dash(n.GetId()), dash(n.GetRecovery())})
	}
	if more := answer.GetCount() - uint64(len(answer.GetNeeds())); more > 0 {
		t.rows = append(t.rows, []string{fmt.Sprintf("and %d more", more)})
	}
	return t
}
