package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"chatelaine/kms/approval"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

const ceremonyHelp = `Dual control begins with a ceremony, once. Everybody who is named in the first rules,
and has a key, signs one and the same statement.

  1. Write the rules (deploy/examples/rules.yaml), with everybody's public keys.
  2. chatelaine ceremony begin RULES.yaml FOLDER
     asks the KMS for the statement. The folder then has it, and the rules.
  3. Each person reads both and signs, wherever the key is: with
     chatelaine ceremony sign FOLDER --sign-key ~/.ssh/id_ed25519
     or, without Chatelaine, into a file NAME.sig in the folder:
     ssh-keygen -Y sign -n chatelaine -f ~/.ssh/id_ed25519 < statement > NAME.sig
  4. chatelaine ceremony apply FOLDER
     turns dual control on, and writes transcript.txt for people and transcript.json
     for ` + "`chatelaine approvals verify`" + `.

Keep the transcript. Put its SHA-256 into kms.yaml as ` + "`ceremony`" + `: then not even who can
write to the KMS's state can turn dual control off.`

func ceremonyCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use: "ceremony", Short: "Turn dual control on, once, with everybody's signature", Long: ceremonyHelp, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine ceremony --help`")}
		},
	}
	a.bind(cmd)
	cmd.AddCommand(beginCeremonyCommand(a), signCeremonyCommand(a), applyCeremonyCommand(a))
	return cmd
}

// Files of a ceremony's folder.
const (
	ceremonyRules     = "rules.yaml"
	ceremonyStatement = "statement"
)

func beginCeremonyCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "begin RULES FOLDER", Short: "Write the statement that everybody signs", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, _, err := readRules(args[0])
			if err != nil {
				return err
			}
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Approvals.BeginCeremony(ctx, &kmsv1.BeginCeremonyRequest{Rules: text})
				if err != nil {
					return err
				}
				statement := answer.GetStatement()
				if _, err := approval.CheckCeremony(statement, text); err != nil {
					return err
				}
				if err := os.MkdirAll(args[1], 0o750); err != nil {
					return fmt.Errorf("making the folder: %w", err)
				}
				err = errors.Join(writeNew(args[1], ceremonyRules, text), writeNew(args[1], ceremonyStatement, statement))
				if err != nil {
					return advise(err, "name a new folder: each ceremony has its own")
				}
				return a.show(map[string]string{"statement": string(statement), "digest": approval.Digest(statement)}, table{rows: [][]string{
					{"The statement, SHA-256 " + approval.Digest(statement) + ":\n\n" + string(statement)},
					{"Everybody in it signs: chatelaine ceremony sign " + args[1] + " --sign-key FILE"},
					{"Then: chatelaine ceremony apply " + args[1]},
				}})
			})
		},
	}
}

// writeNew writes a file that must not be there: nobody's signature is overwritten.
func writeNew(folder, name string, text []byte) error {
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // G302: nothing of a ceremony is secret
	if err != nil {
		return fmt.Errorf("writing %q: %w", name, err)
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing %q: %w", name, err)
	}
	return nil
}

// ceremonyFolder is what `ceremony begin` has written.
type ceremonyFolder struct {
	path             string
	statement, rules []byte
	parsed           *approval.Rules
}

func openCeremony(path string) (ceremonyFolder, error) {
	f := ceremonyFolder{path: path}
	var err, err2 error
	f.statement, err = os.ReadFile(filepath.Join(path, ceremonyStatement))
	f.rules, err2 = os.ReadFile(filepath.Join(path, ceremonyRules))
	if err := errors.Join(err, err2); err != nil {
		return f, advise(usageError{fmt.Errorf("reading the ceremony: %w", err)}, "`chatelaine ceremony begin` makes the folder")
	}
	if f.parsed, err = approval.CheckCeremony(f.statement, f.rules); err != nil {
		return f, usageError{err}
	}
	return f, nil
}

func signCeremonyCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "sign FOLDER", Short: "Sign the statement with one's SSH key, without a KMS", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := openCeremony(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "The rules:\n\n%s\nThe statement, SHA-256 %s:\n\n%s\n", printable(f.rules), approval.Digest(f.statement), f.statement)
			if err := a.confirm(cmd, "sign this?"); err != nil {
				return err
			}
			signature, err := a.sign(cmd.Context(), cmd, f.statement)
			if err != nil {
				return err
			}
			p, err := f.parsed.Signer(f.statement, signature)
			if err != nil {
				return advise(err, "sign with a key that the rules have")
			}
			if err := writeNew(f.path, p.Name+".sig", []byte(signature)); err != nil {
				return advise(err, p.Name+" has signed already")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Signed as %s.\n", p.Name)
			return nil
		},
	}
}

func applyCeremonyCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "apply FOLDER", Short: "Turn dual control on, and write the transcript", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := openCeremony(args[0])
			if err != nil {
				return err
			}
			signatures, err := f.signatures()
			if err != nil {
				return err
			}
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Approvals.ApplyCeremony(ctx, &kmsv1.ApplyCeremonyRequest{
					Statement: f.statement, Rules: f.rules, Signatures: signatures,
				})
				if err != nil {
					return advise(err, "everybody signs with `chatelaine ceremony sign "+f.path+"`; `chatelaine rules show` says whether a ceremony was held")
				}
				return a.concluded(f, answer.GetBundle())
			})
		},
	}
}

// signatures reads all .sig files, and says whose do not fit before anything is sent.
func (f ceremonyFolder) signatures() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(f.path, "*.sig"))
	if err != nil {
		return nil, fmt.Errorf("listing signatures: %w", err)
	}
	var out []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			_, err = f.parsed.Signer(f.statement, string(text))
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", file, err)}
		}
		out = append(out, string(text))
	}
	return out, nil
}

// concluded writes the transcript. Dual control is on by then, so a file that cannot
// be written is said, and how to have it again.
func (a *admin) concluded(f ceremonyFolder, bundle []byte) error {
	b, err := approval.ParseBundle(bundle)
	if err != nil {
		return err
	}
	text, err := b.Transcript()
	if err != nil {
		return err
	}
	err = errors.Join(writeNew(f.path, "transcript.txt", text), writeNew(f.path, "transcript.json", bundle))
	if err != nil {
		return advise(fmt.Errorf("dual control is on, but: %w", err), "the ceremony is part of each `chatelaine approvals export`")
	}
	digest := approval.Digest(f.statement)
	return a.show(map[string]string{"ceremony": digest}, table{rows: [][]string{{strings.Join([]string{
		"Dual control is on. Keep " + filepath.Join(f.path, "transcript.txt") + " and transcript.json.",
		"Add to the configuration of each KMS, so that nobody can turn it off behind your back:",
		"  ceremony: " + digest,
	}, "\n")}}})
}
