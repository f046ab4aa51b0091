package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

func approveCommand() *cobra.Command {
	return voteCommand("approve", approval.Approve, "Approve what somebody asks for, with a signature")
}

func rejectCommand() *cobra.Command {
	return voteCommand("reject", approval.Reject, "Reject what somebody asks for, for good; also to take back one's own request")
}

const voteHelp = `It shows the request, asks, signs it with your SSH key (--sign-key), and sends the
signature. Who you are, the key says; anybody may send it.

To sign on a machine of your own, without Chatelaine:
  chatelaine %[1]s ID --statement FILE       writes what is to be signed; read it
  ssh-keygen -Y sign -n chatelaine -f ~/.ssh/id_ed25519 FILE
  chatelaine %[1]s ID --signature FILE.sig   sends the signature`

func voteCommand(name string, v approval.Verdict, summary string) *cobra.Command {
	a := &admin{}
	var statement, signature string
	cmd := &cobra.Command{
		Use: name + " ID", Short: summary, Long: summary + ".\n\n" + fmt.Sprintf(voteHelp, name),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				q, err := a.look(ctx, cmd.ErrOrStderr(), c, args[0])
				if err != nil {
					return err
				}
				if statement != "" {
					return writeStatement(cmd, statement, q.Statement(v), name+" "+short(q.ID))
				}
				return a.vote(ctx, cmd, c, q, v, signature)
			})
		},
	}
	a.bind(cmd)
	cmd.Flags().StringVar(&statement, "statement", "", "write what is to be signed to this file, and do no more")
	cmd.Flags().StringVar(&signature, "signature", "", "file with the signature that was made elsewhere")
	return cmd
}

// look fetches a request, shows it, and returns what its own statement says: people
// sign what they were shown, whatever the KMS says beside it.
func (a *admin) look(ctx context.Context, out io.Writer, c *service.Clients, id string) (approval.Request, error) {
	answer, err := c.Approvals.GetRequest(ctx, &kmsv1.GetRequestRequest{Id: id})
	if err != nil {
		return approval.Request{}, unknown(err, id, "chatelaine pending", nil)
	}
	q, verdict, err := approval.ParseStatement(answer.GetRequest().GetStatement())
	if err != nil {
		return q, err
	}
	if verdict != approval.Ask || !strings.HasPrefix(q.ID, id) {
		return q, errors.New("the KMS answered with another request than the one asked for")
	}
	if err := requestTable(q, answer.GetRequest()).write(out); err != nil {
		return q, err
	}
	attachment := answer.GetAttachment()
	if len(attachment) == 0 {
		return q, nil
	}
	if q.Operation.Params["digest"] != approval.Digest(attachment) {
		return q, errors.New("the KMS sent another document than the one that the request is about")
	}
	fmt.Fprintf(out, "\nThe document that it is about:\n\n%s\n", printable(attachment))
	return q, nil
}

// printable keeps control characters away from a terminal.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			return '?'
		}
		return r
	}, string(text))
}

func (a *admin) vote(ctx context.Context, cmd *cobra.Command, c *service.Clients, q approval.Request, v approval.Verdict, file string) error {
	var signature string
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return usageError{fmt.Errorf("reading the signature: %w", err)}
		}
		signature = string(text)
	} else {
		err := a.confirm(cmd, string(v)+" this?")
		if err == nil {
			signature, err = a.sign(ctx, cmd, q.Statement(v))
		}
		if err != nil {
			return err
		}
	}
	answer, err := c.Approvals.Vote(ctx, &kmsv1.VoteRequest{Id: q.ID, Verdict: string(v), Signature: signature})
	if errors.Is(err, kms.ErrDenied) || errors.Is(err, kms.ErrExists) {
		return advise(err, "whose vote it is, the signature's key says; `chatelaine rules show` has people, keys and groups")
	}
	if err != nil {
		return err
	}
	r := answer.GetRequest()
	return a.show(r, table{rows: [][]string{{fmt.Sprintf("Request %s is %s: %s.", short(r.GetId()), r.GetState(), r.GetWhy())}}})
}

// writeStatement is for those who sign elsewhere.
func writeStatement(cmd *cobra.Command, file string, statement []byte, again string) error {
	if err := os.WriteFile(file, statement, 0o644); err != nil { //nolint:gosec // G306: it is no secret, and others are to sign it
		return fmt.Errorf("writing the statement: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "\nRead %[1]s, then:\n  ssh-keygen -Y sign -n %[2]s -f ~/.ssh/id_ed25519 %[1]s\n  chatelaine %[3]s --signature %[1]s.sig\n",
		file, approval.Namespace, again)
	return nil
}

func requestTable(q approval.Request, r *kmsv1.ApprovalRequest) table {
	op := q.Operation
	t := table{rows: [][]string{
		{"request", q.ID},
		{"action", fmt.Sprintf("%s of %q", op.Action, op.Resource)},
	}}
	for _, name := range slices.Sorted(maps.Keys(op.Params)) {
		t.rows = append(t.rows, []string{"  " + fmt.Sprintf("%q", name), fmt.Sprintf("%q", op.Params[name])})
	}
	return table{rows: append(t.rows, [][]string{
		{"reason", fmt.Sprintf("%q", op.Reason)},
		{"asked by", fmt.Sprintf("%q, calling as %q", q.Requester, op.Actor)},
		{"created", q.Created.UTC().Format("2006-01-02 15:04:05")},
		{"needs", r.GetNeeds()},
		{"state", r.GetState() + ": " + r.GetWhy()},
	}...)}
}

func pendingCommand() *cobra.Command {
	a := &admin{}
	cmd := listRequestsCommand(a, "pending", "List the requests that wait for an approval, or for being used")
	a.bind(cmd)
	return cmd
}

func listRequestsCommand(a *admin, name, summary string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: name, Short: summary, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Approvals.ListRequests(ctx, &kmsv1.ListRequestsRequest{All: all})
				if err != nil {
					return err
				}
				return a.show(answer, requestsTable(answer.GetRequests()))
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that are over")
	return cmd
}

func requestsTable(requests []*kmsv1.ApprovalRequest) table {
	t := table{header: []string{"ID", "STATE", "ACTION", "RESOURCE", "ASKED BY", "APPROVED BY", "NEEDS", "EXPIRES"}, empty: "There are no requests."}
	for _, r := range requests {
		end := r.GetExpires()
		if r.GetUntil() != nil {
			end = r.GetUntil()
		}
		t.rows = append(t.rows, []string{
			short(r.GetId()), r.GetState(), r.GetOperation().GetAction(), r.GetOperation().GetResource(), r.GetRequester(),
			dash(strings.Join(r.GetApprovers(), ",")), r.GetNeeds(), when(end),
		})
	}
	return t
}

func approvalsCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use: "approvals", Short: "Requests and approvals: list, show, ask, export, verify", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine approvals --help`")}
		},
	}
	a.bind(cmd)
	cmd.AddCommand(listRequestsCommand(a, "list", "List requests, as `chatelaine pending` does"),
		showRequestCommand(a), askCommand(a), exportCommand(a), verifyCommand(a))
	return cmd
}

func showRequestCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a request, and the document that it is about", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				if !a.json {
					_, err := a.look(ctx, a.out, c, args[0])
					return err
				}
				answer, err := c.Approvals.GetRequest(ctx, &kmsv1.GetRequestRequest{Id: args[0]})
				if err != nil {
					return unknown(err, args[0], "chatelaine pending", nil)
				}
				return a.show(answer, table{})
			})
		},
	}
}

// askCommand asks for what no command does by itself, such as the use of a key.
func askCommand(a *admin) *cobra.Command {
	var params map[string]string
	cmd := &cobra.Command{
		Use:   "request ACTION RESOURCE",
		Short: "Ask for an approval, such as the use of a key: request key.use key/NAME",
		Long: "Commands that need an approval ask for it by themselves. This asks for the use of a key\n" +
			"whose rules demand it (key.use), or for anything else ahead of time.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(_ context.Context, c *service.Clients) error {
				made, err := a.record(cmd, c, kms.Operation{Action: kms.Action(args[0]), Resource: args[1], Params: params, Reason: a.reason})
				if errors.Is(err, kms.ErrDenied) {
					return advise(err, "the rules must know you: as a caller, or with --as NAME --sign-key FILE")
				}
				if err != nil {
					return err
				}
				return a.show(made, table{rows: [][]string{{fmt.Sprintf(
					"Request %s is %s. Approvers run: chatelaine approve %s", made.GetId(), made.GetState(), short(made.GetId()),
				)}}})
			})
		},
	}
	cmd.Flags().StringToStringVar(&params, "param", nil, "a param of the operation: NAME=VALUE")
	return cmd
}

func exportCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "export ID", Short: "Write a request with its signatures and rules, to be verified anywhere", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Approvals.ExportRequest(ctx, &kmsv1.ExportRequestRequest{Id: args[0]})
				if err != nil {
					return unknown(err, args[0], "chatelaine pending --all", nil)
				}
				_, err = a.out.Write(answer.GetBundle())
				return err
			})
		},
	}
}

// verifyCommand calls nobody: the file proves itself, or it does not.
func verifyCommand(a *admin) *cobra.Command {
	var ceremony string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify an exported approval or a ceremony's transcript.json, without a KMS",
		Long: "Verifies every signature, from the ceremony on. With --ceremony it also shows that the\n" +
			"rules come from that ceremony. Exit codes: 0 approved, 1 not, 2 usage.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return usageError{fmt.Errorf("reading the bundle: %w", err)}
			}
			a.out = cmd.OutOrStdout()
			return a.verify(text, ceremony)
		},
	}
	cmd.Flags().StringVar(&ceremony, "ceremony", "", "SHA-256 of the ceremony's statement, from its transcript")
	return cmd
}

func (a *admin) verify(text []byte, ceremony string) error {
	b, err := approval.ParseBundle(text)
	if err != nil {
		return notProved(err)
	}
	p, err := b.Verify(ceremony)
	if err != nil {
		return notProved(err)
	}
	result := map[string]any{"ceremony": p.Ceremony, "rules": p.Number, "rules_digest": p.Rules.Digest()}
	t := table{rows: [][]string{{"ceremony", p.Ceremony}, {"rules", fmt.Sprintf("%d, SHA-256 %s", p.Number, p.Rules.Digest())}}}
	if ceremony == "" {
		t.rows = append(t.rows, []string{"", "compare the ceremony with the transcript that you trust, or give --ceremony"})
	}
	if p.Request != nil {
		result["approved"], result["approvers"], result["statement"] = p.Approved, p.Approvers, string(p.Request.Statement(approval.Ask))
		state := map[bool]string{true: "approved", false: "not approved"}[p.Approved]
		r := &kmsv1.ApprovalRequest{Needs: p.Rule.String(), State: state, Why: "signed by " + dash(strings.Join(p.Approvers, ", "))}
		t.rows = append(t.rows, requestTable(*p.Request, r).rows...)
	}
	if err := a.show(result, t); err != nil {
		return err
	}
	if p.Request != nil && !p.Approved {
		return errors.New("the request is not approved" + map[bool]string{true: ": " + p.Rejected + " rejected it"}[p.Rejected != ""])
	}
	return nil
}

// notProved is a failure of what was verified, and not of how the command was used:
// its causes are hidden from exitCode.
func notProved(err error) error { return errors.New("it proves nothing: " + err.Error()) }
