package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/backup"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

const backupHelp = `Writes the whole registry, as it is at one revision, into FILE: buckets, wrapped keys,
users, policies, rules of dual control and their approvals. Only the recipients can
open FILE, with age's format (age-encryption.org): public keys of age (age1...), or of
SSH (ssh-ed25519, ssh-rsa), in --recipient or, one a line, in --recipients-file.
Neither the KMS nor its HSM is needed to open it. The secrets in it are wrapped: they
are worth nothing without the HSM, whose own backup is its vendor's business.

An existing FILE is not written over. With --identity, FILE is opened again and compared
after it was written; without, only its bytes are.`

func backupCommand() *cobra.Command {
	a := &admin{}
	var recipients []string
	var recipientsFile, identity string
	cmd := &cobra.Command{
		Use: "backup FILE --recipient KEY", Short: "Write the registry, encrypted, into a file", Long: backupHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				sealed, s, err := takeBackup(ctx, c, recipients, recipientsFile)
				if err == nil {
					err = writeBackup(args[0], sealed)
				}
				if err == nil && identity != "" {
					err = compareBackup(args[0], identity, s)
				}
				if err != nil {
					return err
				}
				return a.show(map[string]any{"file": args[0], "bytes": len(sealed), "records": len(s.Items), "revision": s.Revision, "digest": s.Digest()},
					table{rows: [][]string{{"records", fmt.Sprint(len(s.Items))}, {"revision", fmt.Sprint(s.Revision)}, {"digest", s.Digest()}, {"bytes", fmt.Sprint(len(sealed))}}})
			})
		},
	}
	a.bind(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&recipients, "recipient", nil, "public key of one who can open it; as often as needed")
	flags.StringVar(&recipientsFile, "recipients-file", "", "file with public keys, one a line")
	flags.StringVar(&identity, "identity", "", "private key to open it again with, to compare")
	return cmd
}

// takeBackup fetches a snapshot and encrypts it.
func takeBackup(ctx context.Context, c *service.Clients, recipients []string, file string) ([]byte, kms.Snapshot, error) {
	text := strings.Join(recipients, "\n")
	if file != "" {
		more, err := os.ReadFile(file)
		if err != nil {
			return nil, kms.Snapshot{}, usageError{err}
		}
		text += "\n" + string(more)
	}
	to, err := backup.ParseRecipients(text)
	if err != nil {
		return nil, kms.Snapshot{}, advise(usageError{err}, "--recipient wants age1..., ssh-ed25519 ... or ssh-rsa ...; `age-keygen` makes one")
	}
	s, err := fetchSnapshot(ctx, c)
	if err != nil {
		return nil, s, err
	}
	var sealed bytes.Buffer
	if err := backup.Write(&sealed, s, to); err != nil {
		return nil, s, err
	}
	return sealed.Bytes(), s, nil
}

func fetchSnapshot(ctx context.Context, c *service.Clients) (kms.Snapshot, error) {
	stream, err := c.Recovery.Backup(ctx, &kmsv1.BackupRequest{})
	if err != nil {
		return kms.Snapshot{}, err
	}
	defer stream.Close()
	var reader service.SnapshotReader
	for stream.Receive() {
		switch what := stream.Msg().GetWhat().(type) {
		case *kmsv1.BackupResponse_Head:
			err = reader.Head(what.Head)
		case *kmsv1.BackupResponse_Records:
			err = reader.Records(what.Records)
		case *kmsv1.BackupResponse_Tail:
			return reader.Tail(what.Tail)
		}
		if err != nil {
			return kms.Snapshot{}, err
		}
	}
	return kms.Snapshot{}, errors.Join(errors.New("the KMS has not sent a whole snapshot"), stream.Err())
}

// writeBackup writes a file that was not there, onto the disk, and reads it back. What it
// could not finish it removes.
func writeBackup(name string, content []byte) (err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return advise(usageError{err}, "choose another name: backups are not written over")
	}
	if err != nil {
		return usageError{err}
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = sameContent(name, content)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the backup: %w", err), os.Remove(name))
	}
	return nil
}

func sameContent(name string, content []byte) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return err
	}
	if want := sha256.Sum256(content); !bytes.Equal(h.Sum(nil), want[:]) {
		return errors.New("what is in the file is not what was written")
	}
	return nil
}

func syncFolder(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func compareBackup(name, identity string, want kms.Snapshot) error {
	got, err := openBackup(name, identity)
	if err == nil && got.Digest() != want.Digest() {
		err = fmt.Errorf("the file holds %s, want %s", got.Digest(), want.Digest())
	}
	if err != nil {
		return fmt.Errorf("comparing the backup: %w", err)
	}
	return nil
}

// openBackup reads and decrypts a file.
func openBackup(name, identity string) (kms.Snapshot, error) {
	if identity == "" {
		return kms.Snapshot{}, advise(usageError{errors.New("whose private key opens it?")}, "name its file with --identity: one of age-keygen, or an SSH key without a passphrase")
	}
	key, err := os.ReadFile(identity)
	if err != nil {
		return kms.Snapshot{}, usageError{err}
	}
	ids, err := backup.ParseIdentities(key)
	if err != nil {
		return kms.Snapshot{}, usageError{err}
	}
	file, err := os.Open(name)
	if err != nil {
		return kms.Snapshot{}, usageError{err}
	}
	defer file.Close()
	return backup.Read(file, ids)
}

const restoreHelp = `Adds the records of a backup that the registry does not have. Without --apply it only
shows what would be done. What the registry has always stays: nothing that is blocked,
destroyed, disabled or removed there is taken back. So it is safe to say it twice.

A registry with buckets, users, policies or rules is touched with --merge only, and, if
there are rules of dual control, with an approval (registry.restore). After the loss of
the state, start the KMS with --recover, restore, and then run ` + "`chatelaine recover`" + ` for
what is newer than the backup.

The HSM must hold the primary version of each key and open what is under it. Where it
lacks an older version that records need, --allow-missing-keys goes on without them.
Requests for approvals that were open in the backup are closed. What was disabled,
removed or blocked since the backup, and is forgotten now, is as before: look.`

func restoreCommand() *cobra.Command {
	a := &admin{}
	o := &kmsv1.RestoreOptions{}
	var identity string
	cmd := &cobra.Command{
		Use: "restore FILE --identity FILE [--apply]", Short: "Put a backup of the registry back", Long: restoreHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := openBackup(args[0], identity)
			if err != nil {
				return err
			}
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				o.Change = a.change()
				answer, err := sendSnapshot(ctx, c, s, o)
				if errors.Is(err, kms.ErrExists) {
					err = advise(err, "say --merge to add what it lacks")
				}
				if err != nil {
					return err
				}
				if err := a.show(answer, restoredTables(answer)...); err != nil || answer.GetApplied() {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was changed; say it again with --apply to do it")
				return nil
			})
		},
	}
	a.bind(cmd)
	flags := cmd.Flags()
	flags.StringVar(&identity, "identity", "", "private key that opens it")
	flags.BoolVar(&o.Apply, "apply", false, "do it")
	flags.BoolVar(&o.Merge, "merge", false, "also into a registry that has buckets, users, policies or rules")
	flags.BoolVar(&o.AllowMissingKeys, "allow-missing-keys", false, "also where the HSM lacks old versions that records need")
	return cmd
}

func sendSnapshot(ctx context.Context, c *service.Clients, s kms.Snapshot, o *kmsv1.RestoreOptions) (*kmsv1.RestoreResponse, error) {
	stream, err := c.Recovery.Restore(ctx)
	if err != nil {
		return nil, err
	}
	messages := []*kmsv1.RestoreRequest{
		{What: &kmsv1.RestoreRequest_Options{Options: o}},
		{What: &kmsv1.RestoreRequest_Head{Head: &kmsv1.SnapshotHead{Created: timestamppb.New(s.Created), Revision: s.Revision}}},
	}
	for _, chunk := range service.SnapshotChunks(s.Items) {
		messages = append(messages, &kmsv1.RestoreRequest{What: &kmsv1.RestoreRequest_Records{Records: chunk}})
	}
	end := &kmsv1.SnapshotTail{Records: uint64(len(s.Items)), Digest: s.Digest()}
	messages = append(messages, &kmsv1.RestoreRequest{What: &kmsv1.RestoreRequest_Tail{Tail: end}})
	for _, message := range messages {
		if err := stream.Send(message); errors.Is(err, io.EOF) {
			break // the answer says why
		} else if err != nil {
			return nil, err
		}
	}
	return stream.CloseAndReceive()
}

func restoredTables(r *kmsv1.RestoreResponse) []table {
	kinds := table{header: []string{"RECORDS", "ADDED", "KEPT AS THEY ARE", "LEFT OUT"}, empty: "the backup is empty"}
	for _, k := range r.GetKinds() {
		kinds.rows = append(kinds.rows, []string{k.GetKind(), fmt.Sprint(k.GetAdded()), fmt.Sprint(k.GetKept()), fmt.Sprint(k.GetLeft())})
	}
	notes := table{rows: [][]string{{"backup of " + when(r.GetCreated())}}}
	for _, n := range r.GetNotes() {
		notes.rows = append(notes.rows, []string{n})
	}
	return []table{kinds, notes}
}
