package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// keyCommand is about KEKs.
func keyCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Keys of the HSM: list, rotate, block, destroy",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine key --help`")}
		},
	}
	a.bind(cmd)
	cmd.AddCommand(keyListCommand(a), keyShowCommand(a), keyCanaryCommand(a))
	return cmd
}

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
	t := table{header: []string{"NAME", "STATE", "PRIMARY", "VERSIONS", "PROVIDER", "CREATED"}, empty: "There are no keys."}
	for _, k := range answer.GetKeks() {
		name := k.GetName()
		if name == answer.GetDefaultKek() {
			name += " (default)"
		}
		t.rows = append(t.rows, []string{
			name, dash(k.GetState()), fmt.Sprint(k.GetPrimary()), fmt.Sprint(len(k.GetVersions())), k.GetProvider(), when(k.GetCreated()),
		})
	}
	return t
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
				return a.show(answer.GetKek(), versionsTable(answer.GetKek()))
			})
		},
	}
}

func versionsTable(k *kmsv1.KEK) table {
	t := table{header: []string{"VERSION", "STATE", "SINCE", "BY", "REASON"}}
	for _, v := range k.GetVersions() {
		for _, e := range v.GetHistory() {
			t.rows = append(t.rows, []string{fmt.Sprint(v.GetNumber()), e.GetState(), when(e.GetAt()), e.GetActor(), dash(e.GetReason())})
		}
	}
	return t
}

// unknownKey names keys that the caller may have meant.
func unknownKey(ctx context.Context, c *service.Clients, err error, name string) error {
	if !errors.Is(err, kms.ErrNotFound) {
		return err
	}
	return unknown(err, name, "chatelaine key list", func() []string {
		all, err := c.Keys.ListKEKs(ctx, &kmsv1.ListKEKsRequest{})
		if err != nil {
			return nil
		}
		var names []string
		for _, k := range all.GetKeks() {
			names = append(names, k.GetName())
		}
		return names
	})
}
