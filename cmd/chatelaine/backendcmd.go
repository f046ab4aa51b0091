package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/probe"
	"chatelaine/backends/s3store"
	"chatelaine/gateway/config"
)

const backendCheckHelp = `Finds out what a backend really does, by trying it: conditional writes, alone and many at
once, checksums, ranges, metadata, keys, listings, multipart uploads, copies, tags,
versions and locks. It compares that with what is known of the backend's dialect of S3,
and says what the gateway will therefore refuse.

NAME is a backend of the gateway's configuration; a URL is one that it may have
(s3://host:port?dialect=minio, file:///folder, azure://account.blob.core.windows.net,
gcs://project?location=europe-west3), with the account in
CHATELAINE_BACKEND_ACCESS_KEY_ID and CHATELAINE_BACKEND_SECRET_ACCESS_KEY.

It makes buckets named chatelaine-check-… and deletes them again, also after Ctrl-C. With
--bucket it makes none, and works below .chatelaine/check/ in the one named: then versions
and locks are not tried. It moves about 30 MiB.

It ends with 0 where the gateway can serve safely as it is configured, with 1 where it
cannot, could not find out, or left something behind, and with 2 for usage.`

// backendCommand is about the clouds themselves. Its commands need no KMS.
func backendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backend", Short: "The clouds: check one, list the dialects of S3", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine backend --help`")}
		},
	}
	cmd.AddCommand(backendCheckCommand(), backendDialectsCommand())
	return cmd
}

// backendCheck is what `backend check` is asked for.
type backendCheck struct {
	file, bucket, dialect string
	asJSON                bool
}

func backendCheckCommand() *cobra.Command {
	var c backendCheck
	cmd := &cobra.Command{
		Use: "check NAME|URL", Short: "Try what a backend really does, and say what the gateway will refuse", Long: backendCheckHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.file, "config", "/etc/chatelaine/gateway.yaml", "the gateway's configuration, for NAME")
	flags.StringVar(&c.bucket, "bucket", "", "try it in this bucket, and make none")
	flags.StringVar(&c.dialect, "dialect", "", "the dialect of S3, in place of what the configuration or the host says")
	flags.BoolVar(&c.asJSON, "json", false, "answer in JSON, for programs")
	return cmd
}

func (c *backendCheck) run(ctx context.Context, out, progress io.Writer, name string) error {
	b, err := c.backend(name)
	if err != nil {
		return err
	}
	t, err := openTrial(ctx, b, zap.NewNop())
	if err != nil {
		return err
	}
	trials := 0
	r := probe.Run(ctx, probe.Config{
		Store: t.store, Bucket: c.bucket, Relies: t.relies, Variants: t.variants,
		Tell: func(name string) {
			trials++
			fmt.Fprintf(progress, "%2d %s\n", trials, name)
		},
	})
	err = errors.Join(newChecked(r, t).write(out, c.asJSON), t.close())
	switch {
	case r.Err != nil:
		return errors.Join(fmt.Errorf("checking the backend: %w", r.Err), err)
	case err != nil:
		return err
	case !r.Safe() || len(r.Left) > 0:
		return &exitError{exitFailure, errors.New("the backend is not fit")}
	}
	return nil
}

// backend is the one that is meant: a URL, or a name in the configuration.
func (c *backendCheck) backend(name string) (b config.Backend, err error) {
	b.URL = name
	if !strings.Contains(name, "://") {
		file, err := config.Load(c.file)
		if err != nil {
			return b, usageError{err}
		}
		var ok bool
		if b, ok = file.Backends[name]; !ok {
			return b, usageError{fmt.Errorf("backend %q is not in %s", name, c.file)}
		}
	}
	b.Dialect = cmp.Or(c.dialect, b.Dialect)
	return b, nil
}

// checked is the answer: what was found, beside what is known of the dialect.
type checked struct {
	Dialect string `json:"dialect,omitempty"`
	Safe    bool   `json:"safe"`
	*probe.Report
	// Findings hide those of the Report.
	Findings []compared `json:"findings"`
}

// compared is a finding with what the table has of it: "yes", "no", "unknown"; empty
// where it has nothing.
type compared struct {
	probe.Finding
	Table string `json:"table,omitempty"`
	// Differs says that the table claims what was not found.
	Differs bool `json:"differs,omitempty"`
}

func newChecked(r *probe.Report, t *trialStores) checked {
	c := checked{Dialect: t.dialect, Safe: r.Safe(), Report: r, Findings: []compared{}}
	for _, f := range r.Findings {
		x := compared{Finding: f}
		if fact, ok := t.table[f.Name]; ok {
			x.Table = fact.String()
			x.Differs = f.Result != probe.Untried && fact != s3store.Unknown && (fact == s3store.Yes) != (f.Result == probe.Yes)
		}
		c.Findings = append(c.Findings, x)
	}
	return c
}

func (c checked) write(out io.Writer, asJSON bool) error {
	if asJSON {
		text, err := encode(c)
		if err == nil {
			_, err = out.Write(append(text, '\n'))
		}
		if err != nil {
			return fmt.Errorf("writing the answer: %w", err)
		}
		return nil
	}
	t := table{header: []string{"TRIED", "FOUND", "TABLE", "DETAIL"}, empty: "nothing was tried"}
	for _, f := range c.Findings {
		found, known := string(f.Result), dash(f.Table)
		if f.Unsafe {
			found += " UNSAFE"
		}
		if f.Differs {
			known += " (differs)"
		}
		t.rows = append(t.rows, []string{f.Name, found, known, dash(shorten(f.Detail))})
	}
	if err := t.write(out); err != nil {
		return err
	}
	c.conclude(out)
	return nil
}

// shorten keeps a table a table: an SDK's error has hundreds of characters.
func shorten(text string) string {
	const most = 160
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// conclude says what follows.
func (c checked) conclude(out io.Writer) {
	if c.Dialect != "" {
		fmt.Fprintf(out, "\ndialect: %s\n", c.Dialect)
	}
	fmt.Fprintln(out, "\nwhat does not work, or otherwise:")
	none := true
	for _, f := range c.Findings {
		if f.Refuses != "" && f.Result != probe.Untried {
			fmt.Fprintf(out, "  %s: %s\n", f.Name, f.Refuses)
			none = false
		}
		if f.Unsafe && f.Result == probe.Ignored {
			fmt.Fprintf(out, "  %s: UNSAFE: the gateway would rely on it; name the dialect, or take the option out of the URL\n", f.Name)
		}
	}
	if none {
		fmt.Fprintln(out, "  nothing")
	}
	for _, left := range c.Left {
		fmt.Fprintf(out, "left behind: %s\n", left)
	}
	verdict := "the gateway can serve from it safely"
	if !c.Safe {
		verdict = "the gateway must not serve from it as it is configured"
	}
	fmt.Fprintf(out, "\n%s\n", verdict)
}

func backendDialectsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "dialects", Short: "List what is known of servers and clouds that speak S3, and where from", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a := admin{out: cmd.OutOrStdout(), json: asJSON}
			return a.show(s3store.Dialects(), dialectsTable())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "answer in JSON, with all facts, notes and sources")
	return cmd
}

func dialectsTable() table {
	t := table{header: []string{"DIALECT", "HOSTS", "CHECKSUM", "IF-NONE-MATCH", "IF-MATCH", "ON COMPLETE", "ON DELETE", "ON COPY", "COPIES", "VERSIONS"}}
	for _, d := range s3store.Dialects() {
		host := ""
		if len(d.Hosts) > 0 {
			host = d.Hosts[0]
		}
		t.rows = append(t.rows, []string{
			d.Name, dash(host), string(d.Checksum), d.IfNoneMatch.String(), d.IfMatch.String(),
			d.IfOnComplete.String(), d.IfOnDelete.String(), d.IfOnCopy.String(), d.Copies.String(), d.Versions.String(),
		})
	}
	return t
}

// trialStores are a backend opened to be tried, and what its configuration relies on.
type trialStores struct {
	store    backends.Store
	variants map[string]backends.Store
	relies   map[string]bool
	dialect  string
	table    map[string]s3store.Fact // by names of findings
}

func (t *trialStores) close() error {
	stores := map[string]backends.Store{"": t.store}
	for name, s := range t.variants {
		stores[name] = s
	}
	return closeStores(stores)
}

// openTrial opens any kind of backend; of S3, with nothing refused ahead.
func openTrial(ctx context.Context, b config.Backend, logger *zap.Logger) (*trialStores, error) {
	if scheme, _, _ := strings.Cut(b.URL, ":"); scheme != "s3" && scheme != "s3+http" {
		store, err := openStore(ctx, b, logger)
		return &trialStores{store: store}, err
	}
	c, err := s3Config(b, logger)
	if err != nil {
		return nil, err
	}
	trial, own, row, err := c.Trial()
	if err != nil {
		return nil, usageError{err}
	}
	t := &trialStores{relies: reliesOn(own), dialect: row.Name, table: tableOf(row), variants: map[string]backends.Store{}}
	if t.store, err = s3store.New(trial); err != nil {
		return nil, usageError{err}
	}
	for _, sum := range []s3store.Checksum{s3store.CRC64NVME, s3store.CRC32C} {
		trial.Checksum = sum
		if t.variants[string(sum)], err = s3store.New(trial); err != nil {
			return nil, usageError{err}
		}
	}
	return t, nil
}

// reliesOn names what the gateway would rely on, by names of findings.
func reliesOn(own s3store.Dialect) map[string]bool {
	return map[string]bool{
		"if-none-match":          own.IfNoneMatch != s3store.No,
		"if-none-match-atomic":   own.IfNoneMatch != s3store.No,
		"if-match":               own.IfMatch != s3store.No,
		"if-match-delete":        own.IfOnDelete == s3store.Yes,
		"multipart-conditions":   own.IfOnComplete != s3store.No,
		"copy-conditions":        own.IfOnCopy == s3store.Yes,
		"copy-source-conditions": own.Copies != s3store.No,
		"keys-slashes":           own.PathKeys != s3store.Yes,
		"keys-leading-slash":     own.LeadingSlash == s3store.Yes,
	}
}

// tableOf is a row, by names of findings.
func tableOf(row s3store.Dialect) map[string]s3store.Fact {
	not := map[s3store.Fact]s3store.Fact{s3store.Yes: s3store.No, s3store.No: s3store.Yes}
	facts := map[string]s3store.Fact{
		"if-none-match":        row.IfNoneMatch,
		"if-none-match-atomic": row.IfNoneMatch,
		"if-match":             row.IfMatch,
		"if-match-delete":      row.IfOnDelete,
		"multipart-conditions": row.IfOnComplete,
		"multipart-uneven":     not[row.EqualParts],
		"copy-conditions":      row.IfOnCopy,
		// A copy whose source cannot be pinned is none that the store can offer.
		"copy-source-conditions": row.Copies,
		"versions":               row.Versions,
		"keys-slashes":           not[row.PathKeys],
		"keys-leading-slash":     row.LeadingSlash,
	}
	if row.ETag != "" {
		facts["etag-md5"] = map[bool]s3store.Fact{true: s3store.Yes, false: s3store.No}[row.ETag == "md5"]
	}
	return facts
}
