package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chatelaine/hsm"
	"chatelaine/hsm/doctor"
)

const doctorHelp = `Examines the HSM as the KMS would use it: module, slots, token, limits, mechanisms,
the PIN, every key of ours with its attributes, self-test and IV dialect, and speed.
Each finding says how it is mended. Nothing is changed, but with --make-key, which
makes a key of each configured mechanism, tests it and destroys it again.

Tokens of the failover list are examined too, and must open what the first wraps.

The PIN comes from where the KMS has it, and is tried once. Without a PIN only that is
examined which the module tells everybody.

It ends with 0 when the KMS can serve, with 2 when a person must mend the module, the
PIN or the configuration first, and with 1 for any other failure.`

func doctorCommand() *cobra.Command {
	var from tokenFlags
	var asJSON bool
	var c doctor.Config
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine the HSM, and say how what is wrong is mended", Long: doctorHelp, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, kek, err := from.read()
			if err != nil {
				return err
			}
			if err := checkPIN(token); err != nil {
				return err
			}
			if c.HSM, err = tokenOf(token, token.First()); err != nil {
				return err
			}
			for _, further := range token.Failover {
				one, err := tokenOf(token, further)
				if err != nil {
					return err
				}
				c.Failover = append(c.Failover, one)
			}
			c.Prefix, c.KEK, c.Mechanisms = token.Prefix, kek, mechanismsOf(token)
			r := doctor.Examine(cmd.Context(), c)
			if err := showReport(cmd.OutOrStdout(), r, asJSON); err != nil {
				return err
			}
			return doctorVerdict(r)
		},
	}
	from.bind(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "answer in JSON, for programs")
	flags.BoolVar(&c.MakeKey, "make-key", false, "make a key of each configured mechanism in the first token, test it, and destroy it again")
	flags.DurationVar(&c.Measure, "measure", time.Second, "how long each of the four speeds is measured; 0 for not")
	return cmd
}

// doctorVerdict is the exit code, without a text: the report has said all.
func doctorVerdict(r *doctor.Report) error {
	if r.Worst() != doctor.Failure {
		return nil
	}
	code := exitFailure
	if isConfiguration(r.Err) || errors.Is(r.Err, hsm.ErrNoToken) || errors.Is(r.Err, hsm.ErrUnsafe) || errors.Is(r.Err, hsm.ErrUnsupported) {
		code = exitUsage
	}
	return &exitError{code, errors.New("the HSM is not fit")}
}

func showReport(out io.Writer, r *doctor.Report, asJSON bool) error {
	if asJSON {
		text, err := encode(r)
		if err == nil {
			_, err = out.Write(append(text, '\n'))
		}
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		return nil
	}
	if err := showToken(out, r); err != nil {
		return err
	}
	for _, further := range r.Failover {
		fmt.Fprintf(out, "\nfailover %q\n\n", further.Selected)
		if err := showToken(out, further); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nworst: %s\n", r.Worst())
	return nil
}

func showToken(out io.Writer, r *doctor.Report) error {
	if err := writeTables(out, []table{slotTable(r), mechanismTable(r), objectTable(r)}); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, f := range r.Findings {
		fmt.Fprintf(out, "%-8s %s: %s\n", f.Level, f.About, strings.ReplaceAll(f.Text, "\n", "\n         "))
		if f.Mend != "" {
			fmt.Fprintf(out, "         mend: %s\n", f.Mend)
		}
	}
	return nil
}

func slotTable(r *doctor.Report) table {
	t := table{header: []string{"SLOT", "TOKEN", "SERIAL", "MODEL", "FIRMWARE", "SESSIONS", "FLAGS"}, empty: "no slots"}
	for _, s := range r.Slots {
		if s.Token == nil {
			t.rows = append(t.rows, []string{fmt.Sprint(s.ID), "-", "-", s.Description, "-", "-", dash(s.Problem)})
			continue
		}
		t.rows = append(t.rows, []string{
			fmt.Sprint(s.ID), s.Token.Label, dash(s.Token.Serial), s.Token.Manufacturer + " " + s.Token.Model, s.Token.Firmware,
			limitText(s.Token.Sessions) + " of " + limitText(s.Token.MaxSessions), strings.ReplaceAll(strings.Join(s.Token.Flags, " "), "CKF_", ""),
		})
	}
	return t
}

func limitText(n *uint) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// mechanismTable has those that have a name here: keys that wrap are made of them.
func mechanismTable(r *doctor.Report) table {
	t := table{header: []string{"MECHANISM", "KEYS", "USES", "IN"}}
	if r.Token == nil {
		return t
	}
	for _, m := range r.Token.Token.Mechanisms {
		if strings.HasPrefix(m.Name, "CKM_0x") {
			continue
		}
		where := "library"
		if m.Hardware {
			where = "device"
		}
		t.rows = append(t.rows, []string{m.Name, fmt.Sprintf("%d-%d", m.MinKey, m.MaxKey), strings.Join(m.Uses, ", "), where})
	}
	return t
}

func objectTable(r *doctor.Report) table {
	t := table{header: []string{"KEY", "OBJECT", "CHECK VALUE", "ATTRIBUTES"}}
	for _, k := range r.Keys {
		for _, o := range k.Objects {
			var checks, attributes []string
			for _, v := range o.CheckValues {
				checks = append(checks, v.Value+" ("+v.Method+")")
			}
			for _, a := range o.Attributes {
				attributes = append(attributes, strings.ToLower(strings.TrimPrefix(a.Name, "CKA_"))+"="+a.Value)
			}
			t.rows = append(t.rows, []string{
				o.Label, fmt.Sprintf("%s, %s %s", o.Class, o.Type, bits(o.Bits)), dash(strings.Join(checks, ", ")), strings.Join(attributes, " "),
			})
		}
	}
	return t
}

func bits(n uint) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
