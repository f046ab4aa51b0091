package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"chatelaine/hsm"
	"chatelaine/kms"
	"chatelaine/kms/approval"
	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/keyceremony"
	"chatelaine/kms/pkcs11"
)

const keyCeremonyHelp = `Makes KEKs in the HSM before witnesses, ahead of the KMS's first start or for a KEK of its own.

  1. chatelaine hsm ceremony make FOLDER --config kms.yaml --key main \
         --witness alice=alice.pub --witness bob=bob.pub
     shows token, labels and witnesses, asks, and makes the keys: not extractable, for
     encrypting and decrypting alone. It reads back what the token says of them, takes
     their check values and tests them. The folder then has record.json for programs
     and statement.txt, the same for people.
  2. Each witness reads the statement, compares serial number and check values with
     what the HSM's own tool shows, and signs, wherever the key is: with
     chatelaine hsm ceremony sign FOLDER --sign-key ~/.ssh/id_ed25519
     or, without Chatelaine:
     ssh-keygen -Y sign -n chatelaine -f ~/.ssh/id_ed25519 < statement.txt > NAME.sig
  3. chatelaine hsm ceremony verify FOLDER --witness alice=alice.pub --witness bob=bob.pub
     anywhere and at any time; with --hsm --config kms.yaml it also compares the token.
  4. The KMS takes them over: the default key at its first start, with
     chatelaine kms --config kms.yaml --recover, others with chatelaine key create NAME --adopt.

A user who cannot make keys (a Luna's crypto user) can neither make the KMS's key for
measuring its kill switch: make it too, with --key ` + kms.CanaryKEK + `.`

func keyCeremonyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ceremony", Short: "Make KEKs before witnesses, who sign a record that anybody can verify", Long: keyCeremonyHelp, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine hsm ceremony --help`")}
		},
	}
	cmd.AddCommand(makeKeysCommand(), witnessCommand(), verifyKeysCommand())
	return cmd
}

func makeKeysCommand() *cobra.Command {
	var from tokenFlags
	var a admin
	var keys, witnesses []string
	var own kmsconfig.PKCS11 // what only a ceremony is told by flags
	cmd := &cobra.Command{
		Use: "make FOLDER", Short: "Make keys in the HSM, and write the statement that witnesses sign", Long: keyCeremonyHelp, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, kek, err := from.read()
			if err != nil {
				return err
			}
			if len(keys) == 0 && kek != "" {
				keys = []string{kek}
			}
			p := keyceremony.Plan{Folder: args[0], Reason: a.reason, Tool: "chatelaine " + version}
			if p.Keys, err = keyRefs(keys); err != nil {
				return err
			}
			if p.Witnesses, err = readWitnesses(witnesses); err != nil {
				return err
			}
			if p.Store, err = ceremonyStore(token, own); err != nil {
				return err
			}
			p.Agree = func(r *keyceremony.Record) error {
				if err := ceremonyTable(r).write(cmd.ErrOrStderr()); err != nil {
					return err
				}
				return a.confirm(cmd, "make these keys?")
			}
			r, err := keyceremony.Make(cmd.Context(), p)
			if r != nil {
				told(cmd, args[0], r, len(token.Failover) > 0)
			}
			return explainCeremony(err)
		},
	}
	from.bind(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&keys, "key", nil, "a KEK to make, NAME or NAME.vN; again for more (default: the configuration's kek)")
	flags.StringArrayVar(&witnesses, "witness", nil, "NAME=FILE with the public SSH key of a witness; again for more")
	flags.StringVar(&a.reason, "reason", "", "why, for the record; up to 512 bytes")
	flags.StringVar(&own.Mechanism, "mechanism", "", "what the keys are for (default: what the configuration says, or aes-gcm)")
	flags.IntVar(&own.RSABits, "rsa-bits", 0, "size of RSA keys (default: what the configuration says, or 3072)")
	flags.IntVar(&own.UserType, "user-type", 0, "PKCS#11 number of the user to log in as (default: what the configuration says); 1 is a token's usual user")
	flags.BoolVar(&a.yes, "yes", false, "do not ask")
	return cmd
}

// ceremonyStore is the KMS's configuration with what flags say in place of it: who makes
// keys may be another user than who uses them.
func ceremonyStore(token, own kmsconfig.PKCS11) (pkcs11.Config, error) {
	if own.Mechanism != "" {
		token.Mechanism, token.Mechanisms = own.Mechanism, nil
	}
	if own.RSABits != 0 {
		token.RSABits = own.RSABits
	}
	if own.UserType != 0 {
		token.UserType = own.UserType
	}
	if err := checkPIN(token); err != nil {
		return pkcs11.Config{}, err
	}
	cfg, err := tokenOf(token, token.First())
	if err != nil {
		return pkcs11.Config{}, err
	}
	return pkcs11.Config{HSM: cfg, Prefix: token.Prefix, Mechanism: hsm.Mechanism(token.Mechanism), Mechanisms: mechanismsOf(token)}, nil
}

func keyRefs(texts []string) ([]kms.KeyRef, error) {
	if len(texts) == 0 {
		return nil, usageError{errors.New("which key? Say --key NAME, or --config")}
	}
	var out []kms.KeyRef
	for _, text := range texts {
		ref, err := kms.ParseKeyRef(text)
		if err != nil {
			return nil, usageError{err}
		}
		out = append(out, ref)
	}
	return out, nil
}

// readWitnesses reads NAME=FILE, or NAME=KEY.
func readWitnesses(texts []string) ([]keyceremony.Witness, error) {
	var out []keyceremony.Witness
	for _, text := range texts {
		name, key, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("witness %q: want NAME=FILE with a public key", text)}
		}
		if !strings.HasPrefix(key, "ssh-") && !strings.HasPrefix(key, "sk-ssh-") && !strings.HasPrefix(key, "ed25519:") {
			line, err := os.ReadFile(key)
			if err != nil {
				return nil, usageError{fmt.Errorf("reading the key of witness %q: %w", name, err)}
			}
			key = string(line)
		}
		w, err := keyceremony.NewWitness(name, key)
		if err != nil {
			return nil, usageError{err}
		}
		out = append(out, w)
	}
	return out, nil
}

// ceremonyTable is what there is to agree to, or what was made.
func ceremonyTable(r *keyceremony.Record) table {
	t := table{rows: [][]string{
		{"module", fmt.Sprintf("%s, SHA-256 %s", r.Module.File, r.Module.SHA256)},
		{"token", fmt.Sprintf("%q: %s %s, serial %s, firmware %s", r.Token.Label, r.Token.Manufacturer, r.Token.Model, r.Token.Serial, r.Token.Firmware)},
	}}
	for _, k := range r.Keys {
		t.rows = append(t.rows, []string{"key", fmt.Sprintf("%s as %q for %s", k.KEK, k.Label, k.Mechanism)})
		for _, o := range k.Objects {
			for _, v := range o.CheckValues {
				t.rows = append(t.rows, []string{"", fmt.Sprintf("%s: check value %s (%s)", o.Label, v.Value, v.Method)})
			}
			if o.PublicKey != "" && o.Class != "public key" {
				t.rows = append(t.rows, []string{"", fmt.Sprintf("%s: SHA-256 of the public half %s", o.Label, o.PublicKey)})
			}
		}
	}
	for _, w := range r.Witnesses {
		t.rows = append(t.rows, []string{"witness", w.Name + " " + w.Fingerprint()})
	}
	for i, row := range t.rows {
		for j, cell := range row {
			t.rows[i][j] = printable([]byte(strings.ReplaceAll(cell, "\n", "?")))
		}
	}
	return t
}

// told says what was made and what is to be done.
func told(cmd *cobra.Command, folder string, r *keyceremony.Record, copies bool) {
	out := cmd.OutOrStdout()
	statement := r.Statement()
	fmt.Fprintf(out, "The keys are made. The statement, SHA-256 %s:\n\n%s\n", approval.Digest(statement), statement)
	fmt.Fprintf(out, "Each witness signs: chatelaine hsm ceremony sign %s --sign-key FILE\n", quote(folder))
	fmt.Fprintf(out, "Then: chatelaine hsm ceremony verify %s\n", quote(folder))
	if copies {
		fmt.Fprintln(out, "Copy the keys to the tokens of the failover list with the vendor's tool; `chatelaine hsm doctor` compares them.")
	}
}

// explainCeremony adds what a person can do.
func explainCeremony(err error) error {
	switch {
	case errors.Is(err, hsm.ErrNoToken):
		return advise(usageError{err}, "`chatelaine hsm doctor` lists what the module has")
	case errors.Is(err, hsm.ErrRole):
		return advise(err, "make them with the user who may: --user-type and --pin-file go before the configuration")
	case errors.Is(err, kms.ErrNotFound):
		return advise(usageError{err}, "`chatelaine hsm ceremony make` makes the folder")
	}
	return err
}

func witnessCommand() *cobra.Command {
	var a admin
	cmd := &cobra.Command{
		Use: "sign FOLDER", Short: "Sign the statement with one's SSH key, without HSM and KMS", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := keyceremony.ReadFolder(args[0])
			if err != nil {
				return explainCeremony(err)
			}
			r, err := f.Parse()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "The statement, SHA-256 %s:\n\n%s\n", approval.Digest(f.Statement), f.Statement)
			if err := a.confirm(cmd, "sign this?"); err != nil {
				return err
			}
			signature, err := a.sign(cmd.Context(), cmd, f.Statement)
			if err != nil {
				return err
			}
			w, err := r.Signer(signature)
			if err != nil {
				return advise(err, "sign with a key that the record has")
			}
			if err := keyceremony.AddSignature(args[0], w, signature); err != nil {
				return advise(err, w.Name+" has signed already")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Signed as %s.\n", w.Name)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&a.signKey, "sign-key", os.Getenv("CHATELAINE_SIGN_KEY"), "our SSH key, or its .pub with an agent ($CHATELAINE_SIGN_KEY)")
	flags.BoolVar(&a.yes, "yes", false, "do not ask")
	return cmd
}

func verifyKeysCommand() *cobra.Command {
	var from tokenFlags
	var a admin
	var witnesses []string
	var compare bool
	var userType int
	cmd := &cobra.Command{
		Use: "verify FOLDER", Short: "Verify a ceremony's folder without an HSM, or with it (--hsm)",
		Long: "Verifies that the statement is the record's and that every witness signed it. Give the\n" +
			"witnesses' keys, as you know them, with --witness: else the record is believed who they are.\n" +
			"With --hsm it logs in, the PIN is tried once, and what the token has now is compared with\n" +
			"the record. Exit codes: 0 all holds, 1 something does not, 2 usage.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			known, err := readWitnesses(witnesses)
			if err != nil {
				return err
			}
			f, err := keyceremony.ReadFolder(args[0])
			if err != nil {
				return explainCeremony(err)
			}
			report, err := f.Verify(known)
			if err != nil {
				return err
			}
			var failed error
			if compare {
				failed = compareToken(cmd, &from, userType, report)
			}
			// What the folder tells is shown also when the token cannot be asked.
			a.out = cmd.OutOrStdout()
			verdict := a.verdict(report, len(known) > 0, compare && failed == nil)
			if failed != nil {
				return failed
			}
			return verdict
		},
	}
	from.bind(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&witnesses, "witness", nil, "NAME=FILE with the public key of a witness as you know it; again for all of them")
	flags.BoolVar(&compare, "hsm", false, "compare with what is in the token now; --config or the flags of the token say which")
	flags.IntVar(&userType, "user-type", 0, "PKCS#11 number of the user to log in as (default: what the configuration says)")
	flags.BoolVar(&a.json, "json", false, "answer in JSON, for programs")
	return cmd
}

func compareToken(cmd *cobra.Command, from *tokenFlags, userType int, report *keyceremony.Report) error {
	token, _, err := from.read()
	if err != nil {
		return err
	}
	store, err := ceremonyStore(token, kmsconfig.PKCS11{UserType: userType})
	if err != nil {
		return err
	}
	return explainCeremony(report.Compare(cmd.Context(), store.HSM))
}

// verdict shows a report. Its exit code says it again.
func (a *admin) verdict(report *keyceremony.Report, known, compared bool) error {
	t := table{rows: [][]string{{"statement", "SHA-256 " + report.Digest}}}
	t.rows = append(t.rows, ceremonyTable(report.Record).rows...)
	for _, name := range report.Signed {
		t.rows = append(t.rows, []string{"signed by", name})
	}
	if !known {
		t.rows = append(t.rows, []string{"note", "compare the witnesses' fingerprints with those that you know, or give --witness NAME=FILE"})
	}
	for _, text := range report.Notes {
		t.rows = append(t.rows, []string{"note", printable([]byte(text))})
	}
	for _, text := range report.Problems {
		t.rows = append(t.rows, []string{"PROBLEM", printable([]byte(strings.ReplaceAll(text, "\n", "; ")))})
	}
	t.rows = append(t.rows, []string{"verdict", ceremonyVerdict(report, compared)})
	if err := a.show(report, t); err != nil {
		return err
	}
	if err := report.Err(); err != nil {
		return &exitError{exitFailure, err}
	}
	return nil
}

func ceremonyVerdict(report *keyceremony.Report, compared bool) string {
	switch {
	case report.Err() != nil:
		return fmt.Sprintf("it does not hold: %d problem(s)", len(report.Problems))
	case compared:
		return "all holds, and the token has what was recorded"
	}
	return "all holds; the token was not asked (--hsm)"
}
