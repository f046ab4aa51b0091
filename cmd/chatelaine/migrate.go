package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

func keyMigrateCommand(a *admin) *cobra.Command {
	var to string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "migrate NAME --to PROVIDER",
		Short: "Move a key to another HSM or Vault: a new version there, under which all is wrapped anew",
		Long: "PROVIDER is one that the KMS's configuration names. Objects are not touched and clients notice nothing. The versions in\n" +
			"the old provider are needed until the report, in which this ends, says that nothing is under them; then destroy them,\n" +
			"and only then take the old provider out of the configuration. A key whose migration was interrupted is rewrapped with `key rewrap`.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usageError{errors.New("where to? Say --to PROVIDER")}
			}
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				if _, err := c.Keys.RotateKEK(ctx, &kmsv1.RotateKEKRequest{Name: args[0], Provider: to, Change: a.change()}); err != nil {
					return unknownKey(ctx, c, err, args[0])
				}
				if _, err := c.Jobs.StartRewrap(ctx, &kmsv1.StartRewrapRequest{Kek: args[0], Change: a.change()}); err != nil {
					return err
				}
				if err := watchJob(ctx, cmd, c, args[0]); err != nil {
					return err
				}
				report, err := awaitMirrors(ctx, cmd, c, args[0], wait)
				if err != nil {
					return err
				}
				return a.showReport(report)
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "provider that is to hold the key")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for gateways to write the copies in the backend anew")
	return cmd
}
