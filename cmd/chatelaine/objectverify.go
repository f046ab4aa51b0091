package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"chatelaine/gateway/breakglass"
)

const verifyHelp = `Reads every object of a bucket, or of those below --prefix, to its end, and checks the
size law and every tag, length and sum, as the gateway would. Mirrors of keys are
opened. The gateway's other objects below .chatelaine/ are counted only.

With --report FILE, what was found is kept there, as JSON, every few seconds. When the
same command is said again, it goes on from where FILE says, also after it was killed;
and when that was done, shows it again. Without, it begins anew each time.

What it cannot find: that the provider hides objects or gives older ones, whole. Compare
the count, and what "inspect" says of the time of creation.

Exit codes: 0 all is good; 1 an object is bad, or the work was stopped; 2 usage, PIN.`

// errBad ends a verification that found something.
var errBad = errors.New("not everything is good: see the report")

func objectVerifyCommand() *cobra.Command {
	f, a := &objectFlags{}, &admin{}
	var v breakglass.Verification
	var file string
	cmd := &cobra.Command{
		Use:   "verify BUCKET [--prefix P] [--report FILE]",
		Short: "Read a whole bucket, and report every object that is not as it was sealed",
		Long:  verifyHelp + "\n\n" + objectHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.open(cmd.Context(), args[0], true, cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer o.Close()
			a.out = cmd.OutOrStdout()
			v.Reader, v.Store, v.Bucket = o.Reader, o.store, o.bucket
			return verifyBucket(cmd, a, v, file)
		},
	}
	f.bind(cmd)
	flags := cmd.Flags()
	flags.StringVar(&v.Prefix, "prefix", "", "only objects whose names begin so")
	flags.BoolVar(&v.Versions, "versions", false, "older versions too")
	flags.IntVar(&v.Workers, "workers", 4, "how many objects are read at once")
	flags.StringVar(&file, "report", "", "file to keep the report in, and to go on from")
	flags.BoolVar(&a.json, "json", false, "answer in JSON, for programs")
	return cmd
}

func verifyBucket(cmd *cobra.Command, a *admin, v breakglass.Verification, file string) error {
	from, err := loadReport(file)
	if err != nil {
		return err
	}
	keeper := &reportKeeper{file: file, bar: newProgress(cmd.ErrOrStderr(), "verifying "+v.Bucket)}
	v.Observe = keeper.observe
	r, err := v.Verify(cmd.Context(), from)
	keeper.bar.end()
	if errors.Is(err, breakglass.ErrOtherReport) {
		return advise(usageError{err}, "name another file with --report, or say the same bucket, --prefix and --versions")
	}
	if saved := saveReport(file, r); saved != nil || keeper.err != nil {
		return errors.Join(err, saved, keeper.err)
	}
	if err != nil {
		return advise(err, unless(file == "", "say it again; with --report FILE it would go on from here", "say it again: it goes on from here"))
	}
	if err := a.show(r, reportTables(r)...); err != nil {
		return err
	}
	if len(r.Bad) > 0 {
		return errBad
	}
	return nil
}

// reportKeeper shows progress and keeps the report on the disk.
type reportKeeper struct {
	file  string
	bar   *progress
	saved time.Time
	pause time.Duration // at least, until it is saved again
	err   error
}

// Times between two savings: at least so long, and 20 times what one took.
const (
	saveEvery = 2 * time.Second
	saveShare = 20
)

func (k *reportKeeper) observe(r breakglass.Report) {
	k.bar.note(fmt.Sprintf("%d good, %s, %d bad, at %s", r.Good, byteText(r.Bytes), len(r.Bad), strconv.Quote(r.After.Key)))
	if k.file == "" || k.err != nil || time.Since(k.saved) < max(saveEvery, k.pause) {
		return
	}
	began := time.Now()
	k.err = saveReport(k.file, r)
	k.saved = time.Now()
	k.pause = saveShare * k.saved.Sub(began)
}

// byteText is a number of bytes for people.
func byteText(n int64) string {
	const unit = 1 << 10
	v, names := float64(n), "KMGTP"
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	i := -1
	for v >= unit && i < len(names)-1 {
		v /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, names[i])
}

// loadReport reads what to go on from; the zero Report where there is nothing.
func loadReport(file string) (r breakglass.Report, err error) {
	if file == "" {
		return r, nil
	}
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, usageError{err}
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || r.Chatelaine != breakglass.ReportKind {
		return r, advise(usageError{fmt.Errorf("%q is no report of this program: %w", file, errors.Join(err, breakglass.ErrOtherReport))}, "name another file with --report")
	}
	if _, err := d.Token(); err != io.EOF {
		return r, usageError{fmt.Errorf("%q: something follows the report", file)}
	}
	return r, nil
}

// saveReport puts a report in the place of the one before, whole or not at all.
func saveReport(file string, r breakglass.Report) error {
	if file == "" {
		return nil
	}
	text, err := encode(r)
	if err != nil {
		return fmt.Errorf("keeping the report: %w", err)
	}
	fresh := file + ".new"
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keeping the report: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(fresh, file)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("keeping the report: %w", err)
	}
	return nil
}

func reportTables(r breakglass.Report) []table {
	bad := table{header: []string{"BAD OBJECT", "VERSION", "KIND", "PROBLEM"}}
	for _, p := range r.Bad {
		bad.rows = append(bad.rows, []string{strconv.Quote(p.Key), dash(p.Version), string(p.Kind), p.Problem})
	}
	counts := table{rows: [][]string{
		{"good objects", fmt.Sprint(r.Good)},
		{"plaintext in them", fmt.Sprintf("%d bytes", r.Bytes)},
		{"bad", fmt.Sprint(len(r.Bad))},
		{"mirrors of keys that open", fmt.Sprint(r.Mirrors)},
		{"gateways' own objects", fmt.Sprint(r.Reserved)},
		{"deleted meanwhile", fmt.Sprint(r.Gone)},
		{"space", dash(r.Space)},
		{"from", r.Started.Format(time.RFC3339)},
	}}
	if len(bad.rows) == 0 {
		return []table{counts}
	}
	return []table{bad, counts}
}
