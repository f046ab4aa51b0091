package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// request makes a request of an operation that needs an approval, so that whoever ran
// into it need only wait. Saying the same again finds the same request. Other errors
// pass through.
func (a *admin) request(cmd *cobra.Command, c *service.Clients, err error) error {
	var needed *approval.NeededError
	if !errors.As(err, &needed) {
		return err
	}
	if a.noRequest {
		return advise(err, "without --no-request, a request for it is recorded")
	}
	made, failed := a.record(cmd, c, needed.Operation)
	if failed != nil {
		return advise(err, "no request for it was made: "+failed.Error())
	}
	if a.json {
		if err := a.show(made, table{}); err != nil {
			return err
		}
	}
	return advise(err, nextSteps(made))
}

func nextSteps(r *kmsv1.ApprovalRequest) string {
	again := "say the same again with --approval " + r.GetId()
	if r.GetState() == string(approval.StateApproved) {
		return fmt.Sprintf("request %s is approved: %s", short(r.GetId()), again)
	}
	return fmt.Sprintf("request %s is recorded, and %s. Approvers run: chatelaine approve %s\n  When it is approved, %s",
		r.GetId(), r.GetState(), short(r.GetId()), again)
}

// short is enough of an id to find it by.
func short(id string) string { return id[:min(8, len(id))] }

// record asks for an operation, signing the request where that is needed, or finds the
// request that asks for it already.
func (a *admin) record(cmd *cobra.Command, c *service.Clients, op kms.Operation) (*kmsv1.ApprovalRequest, error) {
	ctx := cmd.Context()
	prepared, err := c.Approvals.PrepareRequest(ctx, &kmsv1.PrepareRequestRequest{
		Operation: &kmsv1.Operation{Action: string(op.Action), Resource: op.Resource, Params: op.Params, Reason: op.Reason},
		As:        a.as,
	})
	if err != nil {
		return nil, err
	}
	q, err := asked(prepared.GetStatement(), op)
	if err != nil {
		return nil, err
	}
	if prepared.GetExists() {
		found, err := c.Approvals.GetRequest(ctx, &kmsv1.GetRequestRequest{Id: q.ID})
		return found.GetRequest(), err
	}
	submit := &kmsv1.SubmitRequestRequest{Statement: prepared.GetStatement()}
	if len(a.attachment) > 0 && op.Params["digest"] == approval.Digest(a.attachment) {
		submit.Attachment = a.attachment
	}
	if prepared.GetMustSign() {
		if submit.Signature, err = a.sign(ctx, cmd, prepared.GetStatement()); err != nil {
			return nil, err
		}
	}
	made, err := c.Approvals.SubmitRequest(ctx, submit)
	return made.GetRequest(), err
}

// asked reads the statement that a KMS has prepared, and refuses to sign anything but
// what we asked for. Of the actor, only the KMS knows.
func asked(statement []byte, op kms.Operation) (approval.Request, error) {
	q, verdict, err := approval.ParseStatement(statement)
	if err != nil {
		return q, err
	}
	op.Actor, op.Approval = q.Operation.Actor, ""
	if field := approval.Differs(q.Operation, op); field != "" || verdict != approval.Ask {
		return q, fmt.Errorf("the KMS has prepared a request for something else: the %s differs", field)
	}
	return q, nil
}

// sign has ssh-keygen sign a statement with --sign-key: that knows agents, passphrases
// and hardware keys. It may ask on the terminal.
func (a *admin) sign(ctx context.Context, cmd *cobra.Command, statement []byte) (string, error) {
	if a.signKey == "" {
		return "", usageError{errors.New("this needs a signature: name your SSH key with --sign-key FILE or CHATELAINE_SIGN_KEY")}
	}
	if _, err := os.Stat(a.signKey); err != nil {
		return "", usageError{fmt.Errorf("reading the key to sign with: %w", err)}
	}
	program, err := exec.LookPath("ssh-keygen")
	if err != nil {
		return "", fmt.Errorf("signing: ssh-keygen is not installed: %w", err)
	}
	sign := exec.CommandContext(ctx, program, "-q", "-Y", "sign", "-n", approval.Namespace, "-f", a.signKey) //nolint:gosec // G204: ssh-keygen with the caller's own key
	sign.Stdin, sign.Stderr = strings.NewReader(string(statement)), cmd.ErrOrStderr()
	signature, err := sign.Output()
	if err != nil {
		return "", fmt.Errorf("signing with %q: ssh-keygen: %w", a.signKey, err)
	}
	return string(signature), nil
}
