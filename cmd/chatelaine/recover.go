package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"chatelaine/backends"
	gatewayconfig "chatelaine/gateway/config"
	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

const recoverHelp = `Rebuilds the registry of a KMS that has lost it. Beside its objects, each bucket has
its wrapped keys in the cloud; with the HSM that wrapped them they can be opened again.
This command reads them from the backends of the gateway's configuration, and the KMS
proves each by unwrapping it. Without --apply it only shows what would be done.

Start the KMS with --recover first (` + "`chatelaine kms --recover`, `chatelaine up --recover`" + `), so
that it takes the keys of its HSM over instead of refusing to start. A backup is
restored before this command is run: it then adds what is newer than the backup.

BUCKET names a bucket as it lies in the cloud: NAME, or BACKEND/NAME where there are
several backends; =NAME after it is its name for S3 clients, where that is not the name
without bucket_prefix. None means all that have keys. Recover all buckets in one run:
only then are copies of one in another noticed.

The owner is named here and never by the cloud. So can be --profile, --etag and --kek;
otherwise they are as the newest mirror says, which the cloud could have forged: look
at the table. Users, policies, rules of dual control, blocks and settings of keys are
in no mirror: a backup has them, or they are made anew. Set blocks before gateways run.

When the HSM is lost too, and the lost KMS had a recovery in its configuration, each
mirror has its key a second time. The new KMS then starts as always, without --recover,
and wraps the keys under one of its own: --kek, or that of the name it had, or its
default. With recovery.public_key, --recovery-key names the private key. It is used on
this machine and goes nowhere; the bucket keys that it opens go to the KMS, over the
connection of this command. One with a passphrase comes from a pipe:

    openssl pkey -in recovery.pem | chatelaine recover --recovery-key - ...

Who has only the public key could have made such copies: so the lost KMS has signed
them, and --signer names the fingerprint that ` + "`chatelaine report key`" + ` showed of it. With
recovery.provider, --recovery-kek has the KMS use that. Where the registry is in use and
has rules of dual control, an approval is needed (registry.restore).

Exit codes: 0, 1 something was refused, missing or in conflict (the rest is done), 2 usage.`

// recovery are the flags of `chatelaine recover`.
type recovery struct {
	*admin
	config, backend, provider string
	owners                    []string
	kek, profile, etag, space string
	apply                     bool
	recoveryKey               string
	recoveryKEK               bool
	signers                   []string
	opener                    *opener  // with recoveryKey
	unread                    []string // mirrors that the cloud did not give
}

func recoverCommand() *cobra.Command {
	r := &recovery{admin: &admin{}}
	cmd := &cobra.Command{
		Use:   "recover [BUCKET...] --owner PRINCIPAL [--apply]",
		Short: "Rebuild lost bucket keys from the clouds and the HSM",
		Long:  recoverHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.prepareOpener(cmd.InOrStdin()); err != nil {
				return err
			}
			return r.call(cmd, func(ctx context.Context, c *service.Clients) error {
				return r.run(ctx, cmd, c, args)
			})
		},
	}
	r.bind(cmd)
	flags := cmd.Flags()
	flags.StringVar(&r.config, "config", "", "the gateway's configuration, which names the backends")
	flags.StringVar(&r.backend, "backend", "", "instead of --config: the URL of the backend of `chatelaine up`")
	flags.StringArrayVar(&r.owners, "owner", nil, "whose the buckets are; or BUCKET=PRINCIPAL for one, as often as needed")
	flags.StringVar(&r.provider, "provider", "", "what holds keys that the KMS does not know (default: its own default)")
	flags.StringVar(&r.kek, "kek", "", "key of the buckets that are made")
	flags.StringVar(&r.profile, "profile", "", "their profile: standard or strict")
	flags.StringVar(&r.etag, "etag", "", "their ETags: backend or md5")
	flags.StringVar(&r.space, "space", "", "of one bucket, where keys of several spaces lie in it")
	flags.StringVar(&r.recoveryKey, "recovery-key", "", "open the recovery copies with the RSA private key in this `file`, in PEM; - is stdin")
	flags.StringArrayVar(&r.signers, "signer", nil, "with --recovery-key: `fingerprint` of the KMS that made the copies, as its report key; as often as needed")
	flags.BoolVar(&r.recoveryKEK, "recovery-kek", false, "have the KMS open the recovery copies with its recovery KEK")
	flags.BoolVar(&r.apply, "apply", false, "do it")
	return cmd
}

// errUnclean ends a recovery that did what it could.
var errUnclean = errors.New("not everything could be recovered: see above")

func (r *recovery) run(ctx context.Context, cmd *cobra.Command, c *service.Clients, args []string) error {
	config, err := cloudConfig(r.config, r.backend)
	if err != nil {
		return err
	}
	stores, err := openStores(ctx, config.Backends, zap.NewNop())
	if err != nil {
		return err
	}
	defer func() { _ = closeStores(stores) }() // they were read only
	sources, err := r.sources(ctx, config, stores, args)
	if err != nil {
		return err
	}
	answer, err := r.send(ctx, cmd, c, sources)
	if err != nil {
		return err
	}
	if r.opener != nil {
		r.opener.addTo(answer)
	}
	if err := r.show(answer, recoveryTables(answer)...); err != nil {
		return err
	}
	for _, line := range r.unread {
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	r.advise(cmd.ErrOrStderr(), answer)
	if !answer.GetClean() || len(r.unread) > 0 {
		return errUnclean
	}
	return nil
}

// cloudConfig is the configuration as far as it says where buckets lie: that of a file,
// or one backend by its URL.
func cloudConfig(file, backend string) (gatewayconfig.Config, error) {
	if (file == "") == (backend == "") {
		return gatewayconfig.Config{}, advise(usageError{errors.New("where do the buckets lie?")},
			"name the gateway's configuration with --config, or the backend of `chatelaine up` with --backend file:///data/cloud")
	}
	if backend != "" {
		return gatewayconfig.Config{Backends: map[string]gatewayconfig.Backend{upBackend: {URL: backend}}}, nil
	}
	c, err := gatewayconfig.LoadPartial(file)
	if err == nil && len(c.Backends) == 0 {
		err = fmt.Errorf("%s names no backends", file)
	}
	if err != nil {
		return c, usageError{err}
	}
	return c, nil
}

// ownerOf finds the owner of a bucket.
func (r *recovery) ownerOf(bucket string) (string, error) {
	owner := ""
	for _, given := range r.owners {
		name, principal, one := strings.Cut(given, "=")
		switch {
		case one && name == bucket:
			return principal, nil
		case !one:
			owner = given
		}
	}
	if owner == "" {
		return "", advise(usageError{fmt.Errorf("whose is bucket %q?", bucket)}, "say --owner PRINCIPAL, or --owner "+bucket+"=PRINCIPAL")
	}
	return owner, nil
}

// send has the KMS prove all mirrors.
func (r *recovery) send(ctx context.Context, cmd *cobra.Command, c *service.Clients, sources []source) (*kmsv1.RecoverResponse, error) {
	stream, err := c.Recovery.Recover(ctx)
	if err != nil {
		return nil, err
	}
	bar := newProgress(cmd.ErrOrStderr(), "mirrors")
	err = r.sendAll(ctx, sources, bar, stream.Send)
	bar.end()
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the answer says why
		return nil, err
	}
	return stream.CloseAndReceive()
}

func (r *recovery) sendAll(ctx context.Context, sources []source, bar *progress, send func(*kmsv1.RecoverRequest) error) error {
	options := &kmsv1.RecoverOptions{Apply: r.apply, Provider: r.provider, RecoveryKek: r.recoveryKEK, Change: r.change()}
	if err := send(&kmsv1.RecoverRequest{What: &kmsv1.RecoverRequest_Options{Options: options}}); err != nil {
		return err
	}
	var done, total uint64
	for _, s := range sources {
		total += uint64(len(s.mirrors))
	}
	for _, s := range sources {
		owner, err := r.ownerOf(s.name)
		if err != nil {
			return err
		}
		bucket := &kmsv1.RecoverBucket{
			Name: s.name, Store: s.backend, StoreName: s.storeName, Owner: owner,
			Space: r.space, Kek: r.kek, Profile: r.profile, Etag: r.etag,
		}
		if err := send(&kmsv1.RecoverRequest{What: &kmsv1.RecoverRequest_Bucket{Bucket: bucket}}); err != nil {
			return err
		}
		for _, key := range s.mirrors {
			done++
			bar.set(done, total)
			record, err := s.read(ctx, key)
			if err != nil {
				r.unread = append(r.unread, fmt.Sprintf("%s/%s: mirror %s cannot be read: %v", s.backend, s.storeName, key, err))
				continue
			}
			mirror := r.mirror(s.name, key, record)
			if mirror == nil {
				continue
			}
			if err := send(&kmsv1.RecoverRequest{What: &kmsv1.RecoverRequest_Mirror{Mirror: mirror}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// read reads a mirror, or enough of what is too long for one.
func (s source) read(ctx context.Context, key string) ([]byte, error) {
	object, err := s.store.Get(ctx, backends.ObjectID{Bucket: s.storeName, Key: key}, nil)
	if err != nil {
		return nil, err
	}
	defer object.Body.Close()
	return io.ReadAll(io.LimitReader(object.Body, kms.MaxMirror+1))
}

func recoveryTables(r *kmsv1.RecoverResponse) []table {
	buckets := table{
		header: []string{"BUCKET", "LIES IN", "OWNER", "OUTCOME", "NEW KEYS", "KNOWN", "NEWEST EPOCH", "KEY", "PROFILE", "ETAG"},
		empty:  "no bucket has keys there",
	}
	problems := table{}
	note := func(bucket, what, text string) { problems.rows = append(problems.rows, []string{bucket, what, text}) }
	for _, b := range r.GetBuckets() {
		outcome := b.GetOutcome()
		if !r.GetApplied() && (outcome == "made" || outcome == "merged") {
			outcome = "would be " + outcome
		}
		buckets.rows = append(buckets.rows, []string{
			b.GetName(), b.GetStore() + "/" + b.GetStoreName(), b.GetOwner(), outcome, fmt.Sprint(b.GetNewKeys()), fmt.Sprint(b.GetKnownKeys()),
			fmt.Sprint(b.GetNewestEpoch()), dash(b.GetKek()), dash(b.GetProfile()), dash(b.GetEtag()),
		})
		if b.GetProblem() != "" {
			note(b.GetName(), "conflict", b.GetProblem())
		}
		for _, p := range b.GetRefused() {
			note(b.GetName(), "refused", p.GetMirror()+": "+p.GetProblem())
		}
		if b.GetMissingCount() > 0 {
			note(b.GetName(), "missing", fmt.Sprintf("%d epochs have no key; the first are %v: what was written in them stays closed", b.GetMissingCount(), b.GetMissing()))
		}
		for _, w := range b.GetWarnings() {
			note(b.GetName(), "warning", w)
		}
	}
	if len(problems.rows) == 0 {
		return []table{buckets}
	}
	return []table{buckets, problems}
}

// advise says what comes next. It does so beside the answer, which programs read.
func (r *recovery) advise(out io.Writer, answer *kmsv1.RecoverResponse) {
	if len(answer.GetAdopted()) > 0 {
		fmt.Fprintln(out, "keys of the HSM that the KMS did not know: "+strings.Join(answer.GetAdopted(), ", "))
	}
	if !answer.GetApplied() {
		fmt.Fprintln(out, "nothing was changed; say it again with --apply to do it")
		return
	}
	if !answer.GetUsers() {
		fmt.Fprintln(out, "no mirror has users: make new ones, or restore a backup (`chatelaine restore`)")
	}
	if r.opener != nil || r.recoveryKEK {
		fmt.Fprintln(out, "gateways write the mirrors anew, under the new keys; `chatelaine report show KEY` tells when no more are needed")
	}
}
