package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// policyCommand is about who may do what over S3.
func policyCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Access policies: put, show, test",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine policy --help`")}
		},
	}
	a.bind(cmd)
	cmd.AddCommand(policyPutCommand(a), policyShowCommand(a), policyHistoryCommand(a), policyTestCommand(a))
	return cmd
}

// policyFiles are a document in files; "-" is the standard input.
type policyFiles struct{ policies, entities string }

const entitiesUsage = "groups, and users with their groups and tags, as Cedar's JSON; those that hold stay where it is not given"

// read reads the files. Entities that are not named are those that hold.
func (f policyFiles) read(ctx context.Context, in io.Reader, c *service.Clients) (*kmsv1.PolicyDocument, error) {
	policies, err := readInput(f.policies, in)
	if err != nil {
		return nil, usageError{err}
	}
	if f.entities != "" {
		entities, err := readInput(f.entities, in)
		if err != nil {
			return nil, usageError{err}
		}
		return &kmsv1.PolicyDocument{Policies: policies, Entities: entities}, nil
	}
	now, err := c.Policies.GetPolicies(ctx, &kmsv1.GetPoliciesRequest{})
	if err != nil {
		return nil, err
	}
	return &kmsv1.PolicyDocument{Policies: policies, Entities: now.GetDocument().GetEntities()}, nil
}

func readInput(name string, in io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(in)
	}
	return os.ReadFile(name)
}

func policyPutCommand(a *admin) *cobra.Command {
	var files policyFiles
	var check bool
	cmd := &cobra.Command{
		Use:   "put FILE",
		Short: "Put access policies in the place of those that hold",
		Long: `Checks the policies in FILE (Cedar; "-" is the standard input) and, if nothing is
wrong with them, lets them hold instead of those that do. Gateways take them up at
once. What is not permitted by them is denied.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files.policies = args[0]
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				d, err := files.read(ctx, cmd.InOrStdin(), c)
				if err != nil {
					return err
				}
				a.attachment = kms.PolicyDocument{Policies: d.GetPolicies(), Entities: d.GetEntities()}.Text()
				answer, err := c.Policies.PutPolicies(ctx, &kmsv1.PutPoliciesRequest{Document: d, CheckOnly: check, Change: a.change()})
				if err != nil {
					return invalidPolicies(err, "nothing was changed; ")
				}
				return a.show(answer, table{empty: putText(answer, check)})
			})
		},
	}
	cmd.Flags().StringVar(&files.entities, "entities", "", entitiesUsage)
	cmd.Flags().BoolVar(&check, "check", false, "say what is wrong with them, or what they would be, and change nothing")
	return cmd
}

func putText(answer *kmsv1.PutPoliciesResponse, check bool) string {
	v := answer.GetVersion()
	switch {
	case !answer.GetChanged():
		return fmt.Sprintf("Version %d holds already. Its digest is %s.", v.GetVersion(), v.GetDigest())
	case check:
		return fmt.Sprintf("Nothing is wrong. In the place of version %d it would be version %d, with digest %s.", answer.GetReplaced(), v.GetVersion(), v.GetDigest())
	default:
		return fmt.Sprintf("Version %d holds, in the place of version %d. Its digest is %s.", v.GetVersion(), answer.GetReplaced(), v.GetDigest())
	}
}

func invalidPolicies(err error, first string) error {
	if !errors.Is(err, kms.ErrInvalid) {
		return err
	}
	return advise(err, first+"`chatelaine policy show --schema` says what policies may speak of")
}

func policyShowCommand(a *admin) *cobra.Command {
	var version int64
	var schema, entities bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the access policies",
		Long:  "Writes the policies as they were put, so that they can be edited and put again.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &kmsv1.GetPoliciesRequest{}
			if version >= 0 {
				r.Version = new(uint64)
				*r.Version = uint64(version)
			}
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Policies.GetPolicies(ctx, r)
				if err != nil {
					return unknown(err, "", "chatelaine policy history", nil)
				}
				text := string(answer.GetDocument().GetPolicies())
				switch {
				case schema:
					text = answer.GetSchema()
				case entities:
					text = string(answer.GetDocument().GetEntities())
				case !a.json:
					fmt.Fprintln(cmd.ErrOrStderr(), versionText(answer.GetVersion()))
				}
				return a.show(answer, table{empty: strings.TrimSuffix(text, "\n")})
			})
		},
	}
	cmd.Flags().Int64Var(&version, "version", -1, "an earlier version; 0 is what holds where none was put (default: the one that holds)")
	cmd.Flags().BoolVar(&schema, "schema", false, "show what policies may speak of: actions, attributes")
	cmd.Flags().BoolVar(&entities, "entities", false, "show the users and groups that were put with them")
	return cmd
}

func versionText(v *kmsv1.PolicyVersion) string {
	if v.GetVersion() == 0 {
		return "# version 0, the default: no policies were put"
	}
	return fmt.Sprintf("# version %d, put %s by %s: %s", v.GetVersion(), when(v.GetCreated()), v.GetActor(), dash(v.GetReason()))
}

func policyHistoryCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "List the versions of the access policies",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Policies.ListPolicyVersions(ctx, &kmsv1.ListPolicyVersionsRequest{})
				if err != nil {
					return err
				}
				t := table{header: []string{"VERSION", "PUT", "BY", "REASON", "APPROVAL", "DIGEST"}, empty: "None were put; the default holds."}
				for _, v := range answer.GetVersions() {
					t.rows = append(t.rows, []string{
						fmt.Sprint(v.GetVersion()), when(v.GetCreated()), v.GetActor(), dash(v.GetReason()), dash(v.GetApproval()), v.GetDigest(),
					})
				}
				return a.show(answer, t)
			})
		},
	}
}

// Exit codes of `policy test` beside 0, allowed, and 2, usage.
const (
	exitDenied    = 1
	exitUndecided = 3
)

func policyTestCommand(a *admin) *cobra.Command {
	var files policyFiles
	var owner, at string
	r := &kmsv1.TestPoliciesRequest{}
	cmd := &cobra.Command{
		Use:   "test --principal NAME --action s3:ACTION --bucket NAME --object KEY",
		Short: "Say how a request would be decided, and why",
		Long: `Decides a request that nobody makes: by the policies that hold, or by those in
--file. Says which policies determined it, and what the others lacked.

Exit codes: 0 allowed, 1 denied, 2 usage or invalid policies, 3 not decided.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.Reason = a.reason
			if cmd.Flags().Changed("owner") {
				r.Owner = &owner
			}
			if at != "" {
				t, err := time.Parse(time.RFC3339, at)
				if err != nil {
					return usageError{fmt.Errorf("--time %q: want a time like 2026-03-02T09:30:00Z", at)}
				}
				r.Time = timestamppb.New(t)
			}
			err := a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				return a.testPolicies(ctx, cmd.InOrStdin(), c, r, files)
			})
			return undecided(cmd, err)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.Principal, "principal", "", "the user")
	flags.StringVar(&r.Action, "action", "", "as `policy show --schema` lists them: s3:GetObject")
	flags.StringVar(&r.Bucket, "bucket", "", "the bucket; none for s3:ListAllMyBuckets")
	flags.StringVar(&r.Key, "object", "", "the object's key")
	flags.StringVar(&owner, "owner", "", "the bucket's owner (default: that of the bucket of this name, if there is one)")
	flags.StringVar(&r.Prefix, "prefix", "", "of a list")
	flags.StringVar(&r.Source, "source", "127.0.0.1", "IP address of the client")
	flags.BoolVar(&r.Tls, "tls", true, "the client's connection is encrypted")
	flags.BoolVar(&r.Presigned, "presigned", false, "the request was signed in a URL or a form")
	flags.StringVar(&r.AccessKey, "access-key", "", "id of the access key that signs")
	flags.StringVar(&at, "time", "", "when, like 2026-03-02T09:30:00Z (default: now)")
	flags.StringVar(&files.policies, "file", "", "policies to decide by, instead of those that hold")
	flags.StringVar(&files.entities, "entities", "", entitiesUsage)
	return cmd
}

func (a *admin) testPolicies(ctx context.Context, in io.Reader, c *service.Clients, r *kmsv1.TestPoliciesRequest, files policyFiles) error {
	var err error
	if files.policies != "" {
		if r.Candidate, err = files.read(ctx, in, c); err != nil {
			return err
		}
	}
	answer, err := c.Policies.TestPolicies(ctx, r)
	if err != nil {
		return invalidPolicies(err, "nothing was decided; ")
	}
	if !a.json {
		fmt.Fprintln(a.out, decisionText(r, answer))
	}
	if err := a.show(answer, outcomesTable(answer)); err != nil {
		return err
	}
	if !answer.GetAllow() {
		return &exitError{exitDenied, errors.New("denied")}
	}
	return nil
}

// undecided gives every failure another exit code than a denial, and says it.
func undecided(cmd *cobra.Command, err error) error {
	var exit *exitError
	if err == nil || errors.As(err, &exit) || isConfiguration(err) {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "chatelaine: "+err.Error())
	return &exitError{exitUndecided, err}
}

func decisionText(r *kmsv1.TestPoliciesRequest, answer *kmsv1.TestPoliciesResponse) string {
	word, why := "DENIED", "no policy permits it"
	by := strings.Join(answer.GetPolicies(), ", ")
	switch {
	case answer.GetAllow():
		word, why = "ALLOWED", "permitted by "+by
	case by != "":
		why = "forbidden by " + by
	}
	where := r.GetBucket()
	if r.GetKey() != "" {
		where += "/" + r.GetKey()
	}
	text := fmt.Sprintf("%s: %s %s by %s: %s", word, r.GetAction(), where, r.GetPrincipal(), why)
	if answer.GetOwner() != "" {
		text += fmt.Sprintf(" (the bucket is %s's)", answer.GetOwner())
	}
	for _, e := range answer.GetErrors() {
		text += "\n  could not be evaluated: " + e
	}
	return text
}

// maxOutcomes is how many policies people are told of; JSON has all.
const maxOutcomes = 10

func outcomesTable(answer *kmsv1.TestPoliciesResponse) table {
	t := table{header: []string{"POLICY", "LINE", "EFFECT", "APPLIES", "LACKS"}, empty: "There are no policies."}
	for i, o := range answer.GetOutcomes() {
		if i == maxOutcomes {
			rest := fmt.Sprintf("%d more", len(answer.GetOutcomes())-maxOutcomes)
			t.rows = append(t.rows, []string{rest, "", "", "", "--json has all"})
			break
		}
		applies := "no"
		if o.GetApplies() {
			applies = "yes"
		}
		t.rows = append(t.rows, []string{o.GetId(), strconv.Itoa(int(o.GetLine())), o.GetEffect(), applies, dash(missesText(o.GetMisses()))})
	}
	return t
}

func missesText(misses []*kmsv1.PolicyMiss) string {
	texts := make([]string, 0, len(misses))
	for _, m := range misses {
		text := m.GetText()
		if m.GetPart() == "when" || m.GetPart() == "unless" {
			text = m.GetPart() + " " + text
		}
		if m.GetError() != "" {
			text += " (" + m.GetError() + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}
