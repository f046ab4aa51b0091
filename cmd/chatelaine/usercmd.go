package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// userCommand is about those who may use S3.
func userCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Users of S3 and their access keys: create, list, change secrets, disable",
		Long:  "A user is a principal that has access keys. Commands take its name, or the id of an access key.\nWhat a user may do is for the access policies to say.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine user --help`")}
		},
	}
	a.bind(cmd)
	cmd.AddCommand(userCreateCommand(a), userListCommand(a), userShowCommand(a), userRotateCommand(a),
		userStatusCommand(a, "disable", "Refuse a user's access keys, from now on, everywhere", kms.KeyDisabled),
		userStatusCommand(a, "enable", "Accept a user's access keys again", kms.KeyEnabled))
	return cmd
}

func userCreateCommand(a *admin) *cobra.Command {
	var another bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a user with an access key; its secret is shown this once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Users.CreateUser(ctx, &kmsv1.CreateUserRequest{Principal: args[0], Another: another, Change: a.change()})
				if errors.Is(err, kms.ErrExists) {
					return advise(err, "`chatelaine user rotate-secret` changes the secret; --another makes one more access key")
				}
				if err != nil {
					return err
				}
				return a.showSecret(answer, answer.GetKey(), answer.GetSecret())
			})
		},
	}
	cmd.Flags().BoolVar(&another, "another", false, "make one more access key where the user has one")
	return cmd
}

// showSecret answers an access key with its secret, in the form that shells take.
func (a *admin) showSecret(answer proto.Message, key *kmsv1.UserKey, secret string) error {
	return a.show(answer, table{rows: [][]string{
		{"AWS_ACCESS_KEY_ID=" + key.GetId()},
		{"AWS_SECRET_ACCESS_KEY=" + secret},
	}})
}

func userListCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the access keys of all users",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Users.ListUsers(ctx, &kmsv1.ListUsersRequest{})
				if err != nil {
					return err
				}
				return a.show(answer, usersTable(answer.GetKeys()))
			})
		},
	}
}

func usersTable(keys []*kmsv1.UserKey) table {
	t := table{header: []string{"USER", "ACCESS KEY", "STATUS", "CREATED", "OLD SECRET UNTIL", "KEY"}, empty: "There are no users."}
	for _, k := range keys {
		t.rows = append(t.rows, []string{
			k.GetPrincipal(), k.GetId(), k.GetStatus(), when(k.GetCreated()), when(k.GetOldSecretEnds()),
			fmt.Sprintf("%s.v%d", k.GetKek().GetKek(), k.GetKek().GetVersion()),
		})
	}
	return t
}

func userShowCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "show USER",
		Short: "Show what happened to a user's access keys",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Users.GetUser(ctx, &kmsv1.GetUserRequest{User: args[0]})
				if err != nil {
					return unknownUser(ctx, c, err, args[0])
				}
				return a.show(answer, userHistory(answer.GetKeys()))
			})
		},
	}
}

func userHistory(keys []*kmsv1.UserKey) table {
	t := table{header: []string{"ACCESS KEY", "STATUS", "EVENT", "AT", "BY", "REASON"}}
	for _, k := range keys {
		for _, e := range k.GetHistory() {
			t.rows = append(t.rows, []string{k.GetId(), k.GetStatus(), e.GetEvent(), when(e.GetAt()), e.GetActor(), dash(e.GetReason())})
		}
		if len(k.GetHistory()) == 0 { // it is older than histories
			t.rows = append(t.rows, []string{k.GetId(), k.GetStatus(), "created", when(k.GetCreated()), "-", "-"})
		}
	}
	return t
}

func userRotateCommand(a *admin) *cobra.Command {
	var overlap time.Duration
	var endOld string
	cmd := &cobra.Command{
		Use:   "rotate-secret USER",
		Short: "Give an access key a new secret; the old one stays live for a while",
		Long: "The access key id stays, so only the secret is changed where it is used. Both secrets work until the overlap\n" +
			"is over, or until --end-old now.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if endOld != "" && endOld != "now" {
				return usageError{fmt.Errorf("--end-old %q: want now", endOld)}
			}
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				if endOld != "" {
					return a.endOldSecret(ctx, c, args[0])
				}
				answer, err := c.Users.RotateSecret(ctx, &kmsv1.RotateSecretRequest{User: args[0], Overlap: durationpb.New(overlap), Change: a.change()})
				if err != nil {
					return unknownUser(ctx, c, err, args[0])
				}
				return a.showSecret(answer, answer.GetKey(), answer.GetSecret())
			})
		},
	}
	cmd.Flags().DurationVar(&overlap, "overlap", kms.DefaultOverlap, "how long the old secret stays live; 0 ends it at once")
	cmd.Flags().StringVar(&endOld, "end-old", "", "`now`: make no new secret, and end the old one")
	return cmd
}

func (a *admin) endOldSecret(ctx context.Context, c *service.Clients, user string) error {
	answer, err := c.Users.EndOldSecret(ctx, &kmsv1.EndOldSecretRequest{User: user, Change: a.change()})
	if err != nil {
		return unknownUser(ctx, c, err, user)
	}
	return a.show(answer, usersTable([]*kmsv1.UserKey{answer.GetKey()}))
}

func userStatusCommand(a *admin, use, short string, status kms.KeyStatus) *cobra.Command {
	return &cobra.Command{
		Use:   use + " USER",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Users.SetUserStatus(ctx, &kmsv1.SetUserStatusRequest{User: args[0], Status: string(status), Change: a.change()})
				if err != nil {
					return unknownUser(ctx, c, err, args[0])
				}
				return a.show(answer, usersTable(answer.GetKeys()))
			})
		},
	}
}

// unknownUser names users that the caller may have meant.
func unknownUser(ctx context.Context, c *service.Clients, err error, name string) error {
	return unknown(err, name, "chatelaine user list", func() []string {
		all, err := c.Users.ListUsers(ctx, &kmsv1.ListUsersRequest{})
		if err != nil {
			return nil
		}
		var names []string
		for _, k := range all.GetKeys() {
			names = append(names, k.GetPrincipal())
		}
		return slices.Compact(names)
	})
}
