package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

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
	cmd.AddCommand(
		keyListCommand(a), keyShowCommand(a), keyNeedsCommand(a), keyCreateCommand(a), keyRotateCommand(a),
		keyBlockCommand(a), keyUnblockCommand(a), keyDeactivateCommand(a), keyCompromiseCommand(a),
		keyDestroyCommand(a), keyRestoreCommand(a), keySetCommand(a), keyRewrapCommand(a), keyMigrateCommand(a), keyCanaryCommand(a),
	)
	return cmd
}

// keyAction is a command on one key that answers the key as it is then.
type keyAction struct {
	use, short, long string
	version          bool   // --version names one
	all              bool   // --all stands for no version, and one of both must be given
	confirm          string // asked first; %s is the key
	do               func(ctx context.Context, c *service.Clients, name string, version uint32) (*kmsv1.KEK, error)
}

func (k keyAction) command(a *admin) *cobra.Command {
	var version uint32
	var all bool
	cmd := &cobra.Command{
		Use: k.use + " NAME", Short: k.short, Long: k.long,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if k.all && all == (version != 0) {
				return usageError{errors.New("which one? Say either --version N or --all")}
			}
			return k.run(a, cmd, args[0], version)
		},
	}
	if k.version {
		cmd.Flags().Uint32Var(&version, "version", 0, "this version alone")
	}
	if k.all {
		cmd.Flags().BoolVar(&all, "all", false, "the whole key")
	}
	return cmd
}

func (k keyAction) run(a *admin, cmd *cobra.Command, name string, version uint32) error {
	if k.confirm != "" {
		if err := a.confirm(cmd, fmt.Sprintf(k.confirm, keyName(name, version))); err != nil {
			return err
		}
	}
	return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
		kek, err := k.do(ctx, c, name, version)
		if err != nil {
			return unknownKey(ctx, c, err, name)
		}
		return a.show(kek, versionsTable(kek))
	})
}

func keyName(name string, version uint32) string {
	if version == 0 {
		return strconv.Quote(name)
	}
	return fmt.Sprintf("version %d of %q", version, name)
}

func keyCreateCommand(a *admin) *cobra.Command {
	var provider string
	var adopt bool
	cmd := keyAction{
		use: "create", short: "Make a key",
		do: func(ctx context.Context, c *service.Clients, name string, _ uint32) (*kmsv1.KEK, error) {
			answer, err := c.Keys.CreateKEK(ctx, &kmsv1.CreateKEKRequest{Name: name, Provider: provider, Adopt: adopt, Change: a.change()})
			return answer.GetKek(), err
		},
	}.command(a)
	cmd.Flags().StringVar(&provider, "provider", "", "what holds it (default: the KMS's default)")
	cmd.Flags().BoolVar(&adopt, "adopt", false, "take a key that the provider has and the registry does not know: from `chatelaine hsm ceremony`, or after the registry was lost")
	return cmd
}

func keyRotateCommand(a *admin) *cobra.Command {
	return keyAction{
		use: "rotate", short: "Make a new version, which wraps from then on; no data is touched",
		do: func(ctx context.Context, c *service.Clients, name string, _ uint32) (*kmsv1.KEK, error) {
			answer, err := c.Keys.RotateKEK(ctx, &kmsv1.RotateKEKRequest{Name: name, Change: a.change()})
			return answer.GetKek(), err
		},
	}.command(a)
}

const blockHelp = `The kill switch: whatever is sealed under the key can be neither read nor written
until it is unblocked. The command ends when no gateway can use it any more; one that
cannot be reached cannot after its lease. Ending the command ends the waiting alone.`

func keyBlockCommand(a *admin) *cobra.Command {
	var version uint32
	var wait bool
	cmd := &cobra.Command{
		Use: "block NAME", Short: "Kill switch: end all use of a key", Long: blockHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Keys.BlockKEK(ctx, &kmsv1.BlockKEKRequest{Name: args[0], Version: version, Change: a.change()})
				if err != nil {
					return unknownKey(ctx, c, err, args[0])
				}
				if wait {
					answer.Effect, err = inEffect(ctx, c, answer.GetEffect(), cmd.ErrOrStderr())
				}
				return errors.Join(a.show(answer, versionsTable(answer.GetKek()), effectTable(answer.GetEffect().GetGateways())), err)
			})
		},
	}
	cmd.Flags().Uint32Var(&version, "version", 0, "this version alone")
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until it holds at every gateway")
	return cmd
}

// unblockWait is how long gateways are given to hear that a key may be used again. What
// they do not hear at once they hear with their next lease.
const unblockWait = 2 * time.Second

func keyUnblockCommand(a *admin) *cobra.Command {
	return keyAction{
		use: "unblock", short: "Make a blocked key what it was", version: true,
		do: func(ctx context.Context, c *service.Clients, name string, version uint32) (*kmsv1.KEK, error) {
			answer, err := c.Keys.UnblockKEK(ctx, &kmsv1.UnblockKEKRequest{Name: name, Version: version, Change: a.change()})
			if err == nil {
				_, _ = c.Blocks.Await(ctx, &kmsv1.AwaitRequest{Wait: durationpb.New(unblockWait)}) // it is done already
			}
			return answer.GetKek(), err
		},
	}.command(a)
}

func keyDeactivateCommand(a *admin) *cobra.Command {
	return keyAction{
		use: "deactivate", short: "Retire a key: what is under it can be read, nothing new comes under it",
		confirm: "Nothing more can be wrapped under key %s. Deactivate it?",
		do: func(ctx context.Context, c *service.Clients, name string, _ uint32) (*kmsv1.KEK, error) {
			answer, err := c.Keys.DeactivateKEK(ctx, &kmsv1.DeactivateKEKRequest{Name: name, Change: a.change()})
			return answer.GetKek(), err
		},
	}.command(a)
}

func keyCompromiseCommand(a *admin) *cobra.Command {
	return keyAction{
		use: "compromise", short: "Mark an old version as compromised", version: true,
		confirm: "This cannot be taken back. Mark %s as compromised?",
		do: func(ctx context.Context, c *service.Clients, name string, version uint32) (*kmsv1.KEK, error) {
			if version == 0 {
				return nil, usageError{errors.New("which version? Say --version N")}
			}
			answer, err := c.Keys.CompromiseKEK(ctx, &kmsv1.CompromiseKEKRequest{Name: name, Version: version, Change: a.change()})
			return answer.GetKek(), err
		},
	}.command(a)
}

const destroyHelp = `Plans the end of an old version, or of a whole key that was deactivated. Nothing may
need it any more (see ` + "`chatelaine key needs`" + `), and the key's deletion_allowed must be on.
From then on it does nothing; after the waiting period it is destroyed in the HSM, and
until then ` + "`chatelaine key restore`" + ` takes it back. Backups of the HSM may still hold it.`

func keyDestroyCommand(a *admin) *cobra.Command {
	return keyAction{
		use: "destroy", short: "Plan the destruction of a version or a key", long: destroyHelp, version: true, all: true,
		confirm: "After the waiting period nobody can bring it back. Destroy %s?",
		do: func(ctx context.Context, c *service.Clients, name string, version uint32) (*kmsv1.KEK, error) {
			answer, err := c.Keys.DestroyKEK(ctx, &kmsv1.DestroyKEKRequest{Name: name, Version: version, Change: a.change()})
			return answer.GetKek(), err
		},
	}.command(a)
}

func keyRestoreCommand(a *admin) *cobra.Command {
	return keyAction{
		use: "restore", short: "Take a planned destruction back", version: true, all: true,
		do: func(ctx context.Context, c *service.Clients, name string, version uint32) (*kmsv1.KEK, error) {
			answer, err := c.Keys.RestoreKEK(ctx, &kmsv1.RestoreKEKRequest{Name: name, Version: version, Change: a.change()})
			return answer.GetKek(), err
		},
	}.command(a)
}

func keySetCommand(a *admin) *cobra.Command {
	var rotate, waiting string
	var least uint32
	var deletion bool
	var changed func(string) bool
	cmd := keyAction{
		use: "set", short: "Change settings of a key",
		do: func(ctx context.Context, c *service.Clients, name string, _ uint32) (*kmsv1.KEK, error) {
			r := &kmsv1.SetKEKRequest{Name: name, Change: a.change()}
			if changed("min-decryption-version") {
				r.MinDecryptionVersion = &least
			}
			if changed("deletion-allowed") {
				r.DeletionAllowed = &deletion
			}
			var err, err2 error
			if changed("auto-rotate-period") {
				r.AutoRotatePeriod, err = days(rotate)
			}
			if changed("waiting-period") {
				r.WaitingPeriod, err2 = days(waiting)
			}
			if err := errors.Join(err, err2); err != nil {
				return nil, err
			}
			answer, err := c.Keys.SetKEK(ctx, r)
			return answer.GetKek(), err
		},
	}.command(a)
	flags := cmd.Flags()
	changed = flags.Changed
	flags.StringVar(&rotate, "auto-rotate-period", "", "rotate when the newest version is so old: 90d, 24h; 0 for never")
	flags.Uint32Var(&least, "min-decryption-version", 0, "versions before it open nothing more")
	flags.BoolVar(&deletion, "deletion-allowed", false, "whether versions may be destroyed")
	flags.StringVar(&waiting, "waiting-period", "", "how long a destruction can be taken back: 7d, 24h; 0 for 7d")
	return cmd
}

// days reads a duration, which may also be days: "90d".
func days(text string) (*durationpb.Duration, error) {
	const most = 100 * 366
	if number, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > most {
			return nil, usageError{fmt.Errorf("%q is no number of days", text)}
		}
		return durationpb.New(time.Duration(n) * 24 * time.Hour), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("%q is no duration: want 90d, 24h or 0", text)}
	}
	return durationpb.New(d), nil
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
