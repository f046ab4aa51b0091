package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/breakglass"
	"chatelaine/gateway/sealed"
	"chatelaine/kms"
	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/offline"
)

const objectHelp = `Reads sealed objects without a gateway, a KMS or its registry: with the cloud, or a file,
and the HSM alone. Beside its objects each bucket has its wrapped keys (mirrors), in
.chatelaine/keys/; the HSM opens them.

Where objects lie: --config FILE (the gateway's) or --backend URL, and BUCKET as it is
called in the cloud, or BACKEND/BUCKET where there are several backends. Or a file with
stored bytes: --file, --envelope (a file with the value of x-amz-meta-cho1) and --mirror.
KEY is the object's name as S3 clients know it, which its envelope is bound to.

What opens keys: --kms-config FILE (the KMS's; nothing but its providers is used), or
--module, --token and --pin-file for an HSM. If the HSM is lost: --recovery-key and
--signer, for buckets whose keys have recovery copies under an offline key.

Nobody is asked whether a key is blocked, nor for an approval: whoever has the PIN reads.
A provider that copies a bucket with its keys into another one is found out by --space
alone, which names the bucket's own (inspect shows that of a key).`

func objectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "object", Short: "Read sealed objects with the cloud and the HSM alone", Long: objectHelp, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine object --help`")}
		},
	}
	cmd.AddCommand(objectOpenCommand(), objectInspectCommand(), objectVerifyCommand())
	return cmd
}

// objectFlags say where sealed objects lie and what opens their keys.
type objectFlags struct {
	config, backend string
	file, envelope  string
	mirrors         []string
	space, version  string
	token           tokenFlags
	recoveryKey     string
	signers         []string
}

func (f *objectFlags) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "the gateway's configuration, which names the backends")
	flags.StringVar(&f.backend, "backend", "", "instead of --config: the URL of one backend, such as s3://host or file:///folder")
	flags.StringArrayVar(&f.mirrors, "mirror", nil, "file with the mirror of a key, instead of those in the bucket; as often as needed")
	flags.StringVar(&f.space, "space", "", "take keys of this space (UUID) only")
	f.token.bindAs(cmd, "kms-config", "key-prefix")
	flags.StringVar(&f.recoveryKey, "recovery-key", "", "open recovery copies of keys with the RSA private key in this `file`, in PEM; - is stdin")
	flags.StringArrayVar(&f.signers, "signer", nil, "with --recovery-key: `fingerprint` of the KMS that made the copies, as its report key; as often as needed")
}

// bindObject adds what is about one object.
func (f *objectFlags) bindObject(cmd *cobra.Command) {
	f.bind(cmd)
	cmd.Flags().StringVar(&f.file, "file", "", "instead of a backend: file with the stored bytes")
	cmd.Flags().StringVar(&f.envelope, "envelope", "", "with --file: file with the value of x-amz-meta-cho1")
	cmd.Flags().StringVar(&f.version, "version", "", "version of the object; without, the newest")
}

// opened is what the flags have opened.
type opened struct {
	breakglass.Reader
	bucket    string // as it lies in the cloud
	store     backends.Store
	stores    map[string]backends.Store
	providers []kms.Provider
}

// Close lets go of everything. What was read only cannot be lost.
func (o *opened) Close() {
	_ = closeStores(o.stores)
	for _, p := range o.providers {
		_ = p.Close()
	}
}

// open opens the place and, if keys are wanted, what holds KEKs. place is BUCKET or
// BACKEND/BUCKET; empty with --file. The recovery key may come from in. The caller closes
// what comes back.
func (f *objectFlags) open(ctx context.Context, place string, keys bool, in io.Reader) (*opened, error) {
	o := &opened{}
	if err := f.fill(ctx, o, place, keys, in); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// fill is open without the cleaning up.
func (f *objectFlags) fill(ctx context.Context, o *opened, place string, keys bool, in io.Reader) (err error) {
	if err := f.openSource(ctx, o, place); err != nil {
		return err
	}
	c := breakglass.KeysConfig{Space: strings.ToLower(f.space), Signers: f.signers}
	if keys {
		if c.Recovery, err = f.openRecovery(in); err != nil {
			return err
		}
		if o.providers, err = f.openProviders(ctx); err != nil {
			return err
		}
	}
	c.Providers, c.Mirrors = o.providers, breakglass.BesideObjects(o.Source, o.bucket)
	if len(f.mirrors) > 0 || f.file != "" {
		if c.Mirrors, err = f.readMirrors(); err != nil {
			return err
		}
	}
	o.Keys = breakglass.NewKeys(c)
	o.Suite = sealed.Suite{Buffers: &sealed.Buffers{}}
	return nil
}

func (f *objectFlags) openSource(ctx context.Context, o *opened, place string) error {
	if f.file != "" {
		if f.config+f.backend+f.version != "" || f.envelope == "" {
			return usageError{errors.New("--file wants --envelope beside it, and neither --config, --backend nor --version")}
		}
		header, err := os.ReadFile(f.envelope)
		if err != nil {
			return usageError{err}
		}
		o.Source = breakglass.File{Path: f.file, Envelope: strings.TrimSpace(string(header))}
		return nil
	}
	config, err := cloudConfig(f.config, f.backend)
	if err != nil {
		return err
	}
	if o.stores, err = openStores(ctx, config.Backends, zap.NewNop()); err != nil {
		return err
	}
	s, err := parseSource(place, "", o.stores)
	if err != nil {
		return err
	}
	o.bucket, o.store, o.Source = s.storeName, s.store, s.store
	return nil
}

func (f *objectFlags) readMirrors() (breakglass.Mirrors, error) {
	var records [][]byte
	for _, name := range f.mirrors {
		record, err := os.ReadFile(name)
		if err != nil {
			return nil, usageError{err}
		}
		records = append(records, record)
	}
	mirrors, err := breakglass.Given(records...)
	if err != nil {
		return nil, usageError{err}
	}
	return mirrors, nil
}

// openRecovery reads the recovery key, where there is one.
func (f *objectFlags) openRecovery(in io.Reader) (*offline.PrivateKey, error) {
	switch {
	case f.recoveryKey == "" && len(f.signers) > 0:
		return nil, usageError{errors.New("--signer has a meaning with --recovery-key alone")}
	case f.recoveryKey == "":
		return nil, nil
	case len(f.signers) == 0:
		return nil, advise(usageError{errors.New("--recovery-key wants --signer too: whoever knows the public key could have made the copies")},
			"name what `chatelaine report key` showed of the KMS that made them")
	}
	return readRecoveryKey(f.recoveryKey, in)
}

// openProviders opens what may hold the KEKs: one HSM, or all providers of a KMS; none
// where a recovery key is to do.
func (f *objectFlags) openProviders(ctx context.Context) ([]kms.Provider, error) {
	if !f.knowsKEKs() && f.recoveryKey != "" {
		return nil, nil
	}
	if !f.knowsKEKs() {
		return nil, advise(usageError{errors.New("what opens the keys?")}, "name the KMS's configuration with --kms-config, an HSM with --module, --token and --pin-file, or --recovery-key and --signer")
	}
	if f.token.c.Token == "" && f.token.c.Module == "" {
		return f.configuredProviders(ctx)
	}
	token, _, err := f.token.read()
	if err != nil {
		return nil, err
	}
	provider, err := openPKCS11(ctx, "the HSM", token, newHSMWatch(), zap.NewNop())
	if err != nil {
		return nil, err
	}
	return []kms.Provider{provider}, nil
}

// knowsKEKs says whether the flags name what holds KEKs.
func (f *objectFlags) knowsKEKs() bool { return f.token.config != "" || f.token.c.Token != "" }

// configuredProviders puts the default one first.
func (f *objectFlags) configuredProviders(ctx context.Context) ([]kms.Provider, error) {
	c, err := kmsconfig.Load(f.token.config)
	if err != nil {
		return nil, usageError{err}
	}
	first, all, err := openProviders(ctx, c, newHSMWatch(), zap.NewNop())
	if err != nil {
		return nil, err
	}
	out := []kms.Provider{all[first]}
	for name, provider := range all {
		if name != first {
			out = append(out, provider)
		}
	}
	return out, nil
}

// objectArgs reads BUCKET KEY, or KEY alone with --file.
func (f *objectFlags) objectArgs(args []string) (place, key string, err error) {
	switch {
	case f.file != "" && len(args) == 1:
		return "", args[0], nil
	case f.file == "" && len(args) == 2:
		return args[0], args[1], nil
	}
	return "", "", usageError{errors.New("which object? Say BUCKET KEY, or --file FILE and KEY")}
}

// with opens what the flags say for one object, and calls use.
func (f *objectFlags) with(cmd *cobra.Command, args []string, keys bool, use func(o *opened, id backends.ObjectID) error) error {
	place, key, err := f.objectArgs(args)
	if err != nil {
		return err
	}
	o, err := f.open(cmd.Context(), place, keys, cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer o.Close()
	return explainObject(use(o, backends.ObjectID{Bucket: o.bucket, Key: key, Version: f.version}))
}

// explainObject adds what to do to errors of reading objects.
func explainObject(err error) error {
	for _, e := range []struct {
		is error
		do string
	}{
		{breakglass.ErrNoKey, "the key lies wrapped in .chatelaine/keys/ of the bucket, or in a copy of that: name it with --mirror; its KEK must be in the HSM"},
		{sealed.ErrCorrupt, "nothing that is not authentic was released. Is KEY spelt as the client did? An envelope opens for its own name only"},
		{backends.ErrNotFound, "BUCKET is the bucket's name in the cloud, with the gateway's bucket_prefix; KEY is the whole name of the object"},
	} {
		if errors.Is(err, e.is) {
			return advise(err, e.do)
		}
	}
	return err
}

func objectInspectCommand() *cobra.Command {
	f, a := &objectFlags{}, &admin{}
	cmd := &cobra.Command{
		Use:   "inspect BUCKET KEY",
		Short: "Show what is known of an object: of anybody, and with the HSM of its envelope and parts",
		Long: "Without --kms-config or an HSM it shows what anybody can see: sizes, the id of the bucket key, and what its mirror\n" +
			"says. Nothing of that is authenticated. With one, also the envelope and the trailer, which are; the data is\n" +
			"authenticated by `object open` and `object verify` alone.\n\n" + objectHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			a.out = cmd.OutOrStdout()
			keys := f.knowsKEKs() || f.recoveryKey != ""
			return f.with(cmd, args, keys, func(o *opened, id backends.ObjectID) error {
				outline, err := o.Look(cmd.Context(), id)
				if err != nil {
					return err
				}
				shown := inspection{Outline: outlineOf(outline)}
				if keys {
					details, err := o.Inspect(cmd.Context(), id)
					if err != nil {
						return err
					}
					shown.Details = detailsOf(details)
				}
				return a.show(shown, shown.tables()...)
			})
		},
	}
	f.bindObject(cmd)
	cmd.Flags().BoolVar(&a.json, "json", false, "answer in JSON, for programs")
	return cmd
}

func objectOpenCommand() *cobra.Command {
	f, out := &objectFlags{}, ""
	cmd := &cobra.Command{
		Use:   "open BUCKET KEY [--out FILE]",
		Short: "Write the plaintext of an object into a file, or to stdout",
		Long: "FILE must not be there. It appears under its name once every byte is authentic, and on the disk; until then it is\n" +
			"beside that as .FILE.partial-*, and is removed if anything fails. To stdout each byte goes once it is authentic;\n" +
			"whether it is all of the object, the exit code tells.\n\n" + objectHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, args, true, func(o *opened, id backends.ObjectID) error {
				object, err := o.Open(cmd.Context(), id)
				if err != nil {
					return err
				}
				defer func() { _ = object.Close() }()
				if out == "" || out == "-" {
					_, err := object.WriteTo(cmd.OutOrStdout())
					return advise(err, "what was written is authentic, but not all of the object: do not use it")
				}
				n, err := writeWhole(out, object)
				if err == nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "%d bytes, all authentic\n", n)
				}
				return err
			})
		},
	}
	f.bindObject(cmd)
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to make; without, or with -, stdout")
	return cmd
}

// inspection is the answer of `object inspect`.
type inspection struct {
	Outline objectOutline  `json:"outline"`
	Details *objectDetails `json:"details,omitempty"`
}

func (i inspection) tables() []table {
	all := []table{i.Outline.table()}
	if i.Details != nil {
		all = append(all, i.Details.tables()...)
	}
	return slices.DeleteFunc(all, func(t table) bool { return len(t.rows) == 0 })
}
