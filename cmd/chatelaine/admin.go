package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"chatelaine/kms"
	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// admin is what all commands for administrators share: where the KMS is, as whom to
// call it, and how to answer. Everything that they do is an RPC of package
// kms/service, so that other programs can do it too.
type admin struct {
	address          string
	cert, key, ca    string
	json, yes        bool
	reason, approval string
	as, signKey      string
	noRequest        bool

	out        io.Writer // the command's, from call
	attachment []byte    // what a request is about, for those who approve it
}

// bind adds the common flags to a group of commands.
func (a *admin) bind(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&a.address, "kms", os.Getenv("CHATELAINE_KMS"), "the KMS: unix:///path or https://host:port ($CHATELAINE_KMS; default: that of `chatelaine up` in ./.run or ./chatelaine-data)")
	flags.StringVar(&a.cert, "cert", os.Getenv("CHATELAINE_KMS_CERT"), "our certificate for https, in PEM ($CHATELAINE_KMS_CERT)")
	flags.StringVar(&a.key, "key", os.Getenv("CHATELAINE_KMS_KEY"), "its private key ($CHATELAINE_KMS_KEY)")
	flags.StringVar(&a.ca, "ca", os.Getenv("CHATELAINE_KMS_CA"), "the authority of the KMS's certificate ($CHATELAINE_KMS_CA)")
	flags.BoolVar(&a.json, "json", false, "answer in JSON, for programs")
	flags.StringVar(&a.reason, "reason", "", "why, for the history; up to 512 bytes")
	flags.StringVar(&a.approval, "approval", "", "id of an approved request, where the rules want one")
	flags.StringVar(&a.as, "as", "", "the person who asks for an approval, where the rules do not know the caller")
	flags.StringVar(&a.signKey, "sign-key", os.Getenv("CHATELAINE_SIGN_KEY"), "our SSH key, or its .pub with an agent, to sign requests and approvals ($CHATELAINE_SIGN_KEY)")
	flags.BoolVar(&a.noRequest, "no-request", false, "record no request where an approval is needed")
	flags.BoolVar(&a.yes, "yes", false, "do not ask")
}

// call dials the KMS and has f call it. Errors come out with a second line that says
// what to do.
func (a *admin) call(cmd *cobra.Command, f func(ctx context.Context, c *service.Clients) error) error {
	address, err := a.find()
	if err != nil {
		return err
	}
	clients, err := service.Dial(service.DialConfig{Address: address, TLS: a.files(), Logger: zap.NewNop()})
	if err != nil {
		return advise(usageError{err}, "--kms wants unix:///path, or https://host:port with --cert, --key and --ca")
	}
	defer clients.Close()
	a.out = cmd.OutOrStdout()
	return explain(a.request(cmd, clients, f(cmd.Context(), clients)), address)
}

func (a *admin) files() service.TLSFiles {
	return service.TLSFiles{Cert: a.cert, Key: a.key, CA: a.ca}
}

// find is the address of the KMS. The configuration that `up` writes for its KMS
// tells its socket, which is elsewhere when the folder's path is long.
func (a *admin) find() (string, error) {
	if a.address != "" {
		return a.address, nil
	}
	for _, data := range []string{".run", "chatelaine-data"} {
		if c, err := kmsconfig.Load(filepath.Join(data, "home", "run", "kms.yaml")); err == nil {
			return c.Listen, nil
		}
	}
	return "", advise(usageError{errors.New("which KMS? There is no `chatelaine up` in this folder")},
		"name it with --kms or CHATELAINE_KMS: unix:///path, or https://host:port with --cert, --key and --ca")
}

// change is what every changing call carries.
func (a *admin) change() *kmsv1.Change {
	return &kmsv1.Change{Reason: a.reason, Approval: a.approval}
}

// confirm asks before something that is hard to take back. Without a terminal to ask
// on, --yes is needed.
func (a *admin) confirm(cmd *cobra.Command, question string) error {
	if a.yes {
		return nil
	}
	if !isTerminal(cmd.InOrStdin()) {
		return advise(usageError{errors.New(question)}, "say --yes to do it; there is no terminal to ask on")
	}
	fmt.Fprint(cmd.ErrOrStderr(), question+" [y/N] ")
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is no
	if word := strings.ToLower(strings.TrimSpace(answer)); word != "y" && word != "yes" {
		return errors.New("not done: it was not confirmed")
	}
	return nil
}

// advice is an error with a line that says what to do.
type advice struct {
	error
	do string
}

func advise(err error, do string) error {
	if err == nil {
		return nil
	}
	return advice{err, do}
}

// Error is one line of what is wrong, and one of what to do.
func (a advice) Error() string { return a.error.Error() + "\n  " + a.do }
func (a advice) Unwrap() error { return a.error }

// explain adds what to do to errors that mean the same in every command. What says
// so already stays as it is.
func explain(err error, address string) error {
	var already advice
	if err == nil || errors.As(err, &already) {
		return err
	}
	for _, e := range []struct {
		is error
		do string
	}{
		{kms.ErrApproval, "`chatelaine pending` lists requests; when yours is approved, say it again with --approval ID"},
		{kms.ErrDenied, "the KMS must list a name of your certificate under `admins`; on a Unix socket, be its owner"},
		{kms.ErrUnavailable, "does the KMS run at " + address + "? Its log says more; another is named with --kms or CHATELAINE_KMS"},
		{kms.ErrNeeded, "`chatelaine key needs NAME` lists what needs it; `chatelaine key rewrap NAME` moves what is under older versions"},
		{kms.ErrConflict, "somebody else changed it at the same time: look at it, and say it again if it is still needed"},
	} {
		if errors.Is(err, e.is) {
			return advise(err, e.do)
		}
	}
	return err
}

// unknown turns "not found" into the names that come near, or else the command that
// lists all. names may be nil.
func unknown(err error, name, command string, names func() []string) error {
	if !errors.Is(err, kms.ErrNotFound) {
		return err
	}
	do := "`" + command + "` lists what there is"
	if names == nil {
		return advise(err, do)
	}
	if near := similar(name, names()); len(near) > 0 {
		do = "did you mean " + strings.Join(near, " or ") + "? " + do
	}
	return advise(err, do)
}

// similar finds the names that differ from one by two letters, or a third of them.
func similar(name string, names []string) []string {
	var near []string
	allowed := min(len(name)/2, max(2, len(name)/3))
	for _, other := range names {
		if strings.HasPrefix(other, name) || distance(name, other) <= allowed {
			near = append(near, other)
		}
	}
	return near[:min(len(near), 3)]
}

// distance is how many bytes are to be changed, added or taken away to make b of a
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal + 1
			if a[i] == b[j] {
				cost = diagonal
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
