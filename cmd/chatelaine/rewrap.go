package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

func keyRewrapCommand(a *admin) *cobra.Command {
	var rate uint32
	var stop, background bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "rewrap NAME",
		Short: "Wrap what is under older versions under the present one, so that those can be destroyed",
		Long: "Bucket keys and secrets of access keys are wrapped anew; objects are not touched, and the keys that seal them do\n" +
			"not change. The KMS does the work: it goes on when this command ends, and after the KMS was killed. It ends in a\n" +
			"report; `chatelaine report show NAME` makes another.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				if stop {
					return a.stopRewrap(ctx, c, args[0])
				}
				answer, err := c.Jobs.StartRewrap(ctx, &kmsv1.StartRewrapRequest{Kek: args[0], Rate: rate, Change: a.change()})
				if err != nil {
					return unknownKey(ctx, c, err, args[0])
				}
				if background {
					return a.show(answer.GetJob(), jobTable(answer.GetJob()))
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
	cmd.Flags().Uint32Var(&rate, "rate", 0, "records a second at most; 0: as fast as it goes")
	cmd.Flags().BoolVar(&stop, "stop", false, "stop the job that runs; saying rewrap again goes on")
	cmd.Flags().BoolVar(&background, "background", false, "do not wait for the end")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for gateways to write the copies in the backend anew")
	return cmd
}

func (a *admin) stopRewrap(ctx context.Context, c *service.Clients, name string) error {
	answer, err := c.Jobs.StopRewrap(ctx, &kmsv1.StopRewrapRequest{Kek: name, Change: a.change()})
	if errors.Is(err, kms.ErrNotFound) {
		return advise(err, "there has been no job for this key")
	}
	if err != nil {
		return err
	}
	return a.show(answer.GetJob(), jobTable(answer.GetJob()))
}

func jobTable(j *kmsv1.RewrapJob) table {
	return table{
		header: []string{"KEY", "STATE", "DONE", "OF", "STARTED", "ENDED", "PROBLEM"},
		rows: [][]string{{
			j.GetKek(), j.GetState(), fmt.Sprint(j.GetDone()), fmt.Sprint(j.GetTotal()), when(j.GetStarted()), when(j.GetEnded()), dash(j.GetProblem()),
		}},
	}
}

// lookEvery is the time between two looks at what the KMS and gateways do.
const lookEvery = 200 * time.Millisecond

// watchJob shows a job's progress until it has ended.
func watchJob(ctx context.Context, cmd *cobra.Command, c *service.Clients, name string) error {
	bar := newProgress(cmd.ErrOrStderr(), "rewrapping "+name)
	defer bar.end()
	for {
		answer, err := c.Jobs.GetRewrap(ctx, &kmsv1.GetRewrapRequest{Kek: name})
		if err != nil {
			return err
		}
		job := answer.GetJob()
		bar.set(job.GetDone(), job.GetTotal())
		switch kms.JobState(job.GetState()) {
		case kms.JobRunning:
		case kms.JobDone:
			return nil
		default:
			return advise(fmt.Errorf("the job %s after %d of %d: %s", job.GetState(), job.GetDone(), job.GetTotal(), job.GetProblem()),
				"when that is mended, say it again: it goes on with the rest")
		}
		if err := pause(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// awaitMirrors waits until a report shows that nothing needs an old version, or only
// what gateways cannot mend; or for so long.
func awaitMirrors(ctx context.Context, cmd *cobra.Command, c *service.Clients, name string, wait time.Duration) (kms.SignedReport, error) {
	bar := newProgress(cmd.ErrOrStderr(), "copies in backends")
	defer bar.end()
	most, until := uint64(0), time.Now().Add(wait)
	for {
		signed, report, err := askReport(ctx, c, name)
		if err != nil {
			return signed, err
		}
		left := mirrorsLeft(report)
		most = max(most, left)
		if most > 0 {
			bar.set(most-left, most)
		}
		if left == 0 || time.Now().After(until) {
			return signed, nil
		}
		if err := pause(ctx, lookEvery); err != nil {
			return signed, err
		}
	}
}

func mirrorsLeft(r kms.Report) uint64 {
	var n uint64
	for _, v := range r.Versions {
		n += v.Counts[kms.NeedMirror]
	}
	return n
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reportCommand is about what still needs which version of a key.
func reportCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Signed reports of what needs which version of a key",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine report --help`")}
		},
	}
	a.bind(cmd)
	cmd.AddCommand(reportShowCommand(a), reportKeyCommand(a), reportVerifyCommand(a))
	return cmd
}

func reportShowCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "show KEY",
		Short: "Look who needs which version; with --json, the signed report for `report verify`",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				signed, _, err := askReport(ctx, c, args[0])
				if err != nil {
					return unknownKey(ctx, c, err, args[0])
				}
				return a.showReport(signed)
			})
		},
	}
}

// askReport asks for a report, and does not believe it unless its signature is right.
func askReport(ctx context.Context, c *service.Clients, name string) (kms.SignedReport, kms.Report, error) {
	answer, err := c.Jobs.Report(ctx, &kmsv1.ReportRequest{Kek: name})
	if err != nil {
		return kms.SignedReport{}, kms.Report{}, err
	}
	signed := kms.SignedReport{Statement: answer.GetStatement(), Key: answer.GetKey(), Signature: answer.GetSignature()}
	data, err := json.Marshal(signed)
	if err != nil {
		return kms.SignedReport{}, kms.Report{}, err
	}
	report, _, err := kms.VerifyReport(data)
	return signed, report, err
}

// showReport answers the signed report itself with --json.
func (a *admin) showReport(signed kms.SignedReport) error {
	var report kms.Report
	if err := json.Unmarshal(signed.Statement, &report); err != nil {
		return fmt.Errorf("reading a report: %w", err)
	}
	return a.show(signed, reportTable(report))
}

func reportTable(r kms.Report) table {
	t := table{header: []string{"KEY", "VERSION", "STATE", "NEEDED BY"}}
	for _, v := range r.Versions {
		var texts []string
		for _, kind := range slices.Sorted(maps.Keys(v.Counts)) {
			texts = append(texts, fmt.Sprintf("%d %s", v.Counts[kind], kind))
		}
		needed := "nothing"
		if len(texts) > 0 {
			needed = strings.Join(texts, ", ")
		}
		if v.Number == r.Primary {
			needed += " (it is the primary)"
		}
		t.rows = append(t.rows, []string{r.KEK, fmt.Sprint(v.Number), string(v.State), needed})
	}
	return t
}

func reportKeyCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Show the fingerprint of the key that this KMS signs reports with",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Jobs.GetReportKey(ctx, &kmsv1.GetReportKeyRequest{})
				if err != nil {
					return err
				}
				return a.show(answer, table{rows: [][]string{{answer.GetFingerprint()}}})
			})
		},
	}
}

func reportVerifyCommand(a *admin) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "verify FILE --key FINGERPRINT",
		Short: "Check a signed report, without a KMS; it fails unless no old version is needed",
		Long:  "The fingerprint is that of `chatelaine report key`, taken down at a time when the KMS was trusted.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.out = cmd.OutOrStdout()
			data, err := os.ReadFile(args[0])
			if err != nil {
				return usageError{err}
			}
			return a.verifyReport(data, key)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "fingerprint that the signer's key must have")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

// signedBy checks whose key a report is signed with.
func signedBy(signed kms.SignedReport, key string) error {
	if got := kms.Fingerprint(signed.Key); got != key {
		return advise(fmt.Errorf("the report is signed by %s, not by %s", got, key), "`chatelaine report key` shows the key of a KMS; believe neither until you know why")
	}
	return nil
}

func (a *admin) verifyReport(data []byte, key string) error {
	if kms.IsShred(data) {
		return a.verifyShred(data, key)
	}
	if kms.IsAdoption(data) {
		return a.verifyAdoption(data, key)
	}
	report, signed, err := kms.VerifyReport(data)
	if err != nil {
		return err
	}
	if err := signedBy(signed, key); err != nil {
		return err
	}
	t := reportTable(report)
	t.header = append(t.header, "AT")
	for i := range t.rows {
		t.rows[i] = append(t.rows[i], report.Created.UTC().Format("2006-01-02 15:04:05"))
	}
	if err := a.show(report, t); err != nil {
		return err
	}
	if n := report.Needed(); n > 0 {
		return fmt.Errorf("the signature is right; %d records need old versions still", n)
	}
	return nil
}
