package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"chatelaine/kms/approval"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

func rulesCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use: "rules", Short: "Rules of dual control: show, check, put", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine rules --help`")}
		},
	}
	a.bind(cmd)
	cmd.AddCommand(showRulesCommand(a), checkRulesCommand(), putRulesCommand(a))
	return cmd
}

const noRules = "Dual control is off: whoever administers this KMS can do everything alone.\n`chatelaine ceremony --help` says how it is turned on."

func showRulesCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the rules that hold", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Approvals.GetRules(ctx, &kmsv1.GetRulesRequest{})
				if err != nil {
					return err
				}
				if a.json || !answer.GetActive() {
					return a.show(answer, table{empty: noRules})
				}
				_, err = fmt.Fprintf(a.out, "# Rules %d hold. SHA-256 %s\n# They come from the ceremony %s\n%s",
					answer.GetNumber(), answer.GetDigest(), answer.GetCeremony(), answer.GetRules())
				return err
			})
		},
	}
}

func checkRulesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Say what is wrong with a rules file, without a KMS", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, rules, err := readRules(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The rules are good. SHA-256 %s\n", approval.Digest(text))
			t := table{header: []string{"ACTION", "NEEDS (where no rule for its resource comes first)"}}
			for _, action := range approval.Actions() {
				t.rows = append(t.rows, []string{string(action), rules.For(action, "").String()})
			}
			return t.write(cmd.OutOrStdout())
		},
	}
}

func readRules(file string) ([]byte, *approval.Rules, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("reading rules: %w", err)}
	}
	rules, err := approval.ParseRules(text)
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("%s: %w", file, err)}
	}
	return text, rules, nil
}

func putRulesCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "put FILE",
		Short: "Replace the rules, with the quorum that they themselves demand",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, _, err := readRules(args[0])
			if err != nil {
				return err
			}
			a.attachment = text
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Approvals.PutRules(ctx, &kmsv1.PutRulesRequest{Rules: text, Change: a.change()})
				if err != nil {
					return unknown(err, "", "chatelaine ceremony --help", nil)
				}
				return a.show(answer, table{rows: [][]string{{fmt.Sprintf("Rules %d hold.", answer.GetNumber())}}})
			})
		},
	}
}
