package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// awaitLength is how long one call waits for a block to be in effect.
const awaitLength = 10 * time.Second

// inEffect waits until a block holds at every gateway, and says meanwhile on what it
// waits. Ending it ends the waiting, and not the block.
func inEffect(ctx context.Context, c *service.Clients, effect *kmsv1.AwaitResponse, out io.Writer) (*kmsv1.AwaitResponse, error) {
	for !effect.GetComplete() {
		for _, h := range effect.GetGateways() {
			if !h.GetHeard() {
				fmt.Fprintf(out, "blocked; gateway %s has not been heard of, and may use its keys for %v more\n", h.GetGateway(), rounded(h.GetLeft()))
			}
		}
		for _, s := range effect.GetSilent() {
			fmt.Fprintf(out, "blocked; replica %s of the KMS does not answer, and its gateways may use their keys for %v more\n", s.GetName(), rounded(s.GetLeft()))
		}
		next, err := c.Blocks.Await(ctx, &kmsv1.AwaitRequest{Epoch: effect.GetEpoch(), Wait: durationpb.New(awaitLength)})
		if err != nil {
			return effect, fmt.Errorf("it is blocked, but when it holds everywhere is not known: %w", err)
		}
		effect = next
	}
	return effect, nil
}

func rounded(d *durationpb.Duration) time.Duration { return d.AsDuration().Round(time.Millisecond) }

// effectTable says for each gateway when a block was in effect there.
func effectTable(gateways []*kmsv1.Hearing) table {
	t := table{header: []string{"GATEWAY", "KNOWN AS", "BY REPLICA", "IN EFFECT AFTER"}, empty: "No gateway has a lease."}
	for _, h := range gateways {
		after := rounded(h.GetTook()).String()
		if !h.GetHeard() {
			after = fmt.Sprintf("not heard of; lease ends in %v", rounded(h.GetLeft()))
		}
		t.rows = append(t.rows, []string{h.GetGateway(), h.GetPeer(), h.GetReplica(), after})
	}
	return t
}

// keyCanaryCommand measures the kill switch.
func keyCanaryCommand(a *admin) *cobra.Command {
	return &cobra.Command{
		Use:   "canary",
		Short: "Measure how long a block takes to hold at each gateway, with a key of its own",
		Long: `Has every gateway hold a key that no data is under, blocks it, and waits until each
has made sure that it cannot use it any more. It touches no other key. The KMS does the
same by itself (canary in its configuration): metric chatelaine_block_latency_seconds.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, c *service.Clients) error {
				answer, err := c.Blocks.Canary(ctx, &kmsv1.CanaryRequest{})
				if err != nil {
					return err
				}
				t := effectTable(answer.GetGateways())
				t.header = append(t.header, "CANARY")
				for i, h := range answer.GetGateways() {
					t.rows[i] = append(t.rows[i], canaryWord(h))
				}
				if err := a.show(answer, t); err != nil {
					return err
				}
				if !answer.GetComplete() {
					return advise(errors.New("the canary did not reach every gateway"), "look at the logs of those that are not said to be blocked")
				}
				return nil
			})
		},
	}
}

func canaryWord(h *kmsv1.Hearing) string {
	switch h.GetCanary() {
	case "ended":
		return "blocked"
	case "held":
		return "still usable"
	default:
		return "took no part"
	}
}
