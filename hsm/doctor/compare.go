package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"chatelaine/hsm"
)

// witness is what a token wrapped under a key of its own: who has the same key opens it.
type witness struct {
	token  string // as it is selected
	key    hsm.Key
	sealed []byte
}

// compared is what is wrapped to compare keys, and its associated data.
func compared() []byte { return []byte("doctor: tokens hold one key") }

// compareKeys shows that this token's keys are those of the tokens before it, which a
// label does not: a copy of another key of the name would open nothing.
func (r *Report) compareKeys(ctx context.Context, c task, token *hsm.Token) {
	mine := map[string]bool{}
	for _, k := range r.Keys {
		mine[k.Label] = true
		if !k.Tested {
			continue // its failure is said already
		}
		key := hsm.Key{Label: k.Label, Mechanism: k.Mechanism}
		if before, ok := c.known[k.Label]; ok {
			r.compareKey(ctx, token, key, before)
			continue
		}
		r.introduce(ctx, c, token, key)
	}
	for _, label := range slices.Sorted(maps.Keys(c.known)) {
		if !mine[label] {
			r.add(Finding{
				Warning, "key " + label, fmt.Sprintf("it is in %q, and not here: this token cannot stand in for it", c.known[label].token),
				"copy it with the vendor's tool, and say this again",
			})
		}
	}
}

func (r *Report) compareKey(ctx context.Context, token *hsm.Token, key hsm.Key, before witness) {
	about := "key " + key.Label
	opened, err := token.Decrypt(ctx, hsm.Key{Label: key.Label, Mechanism: before.key.Mechanism}, before.sealed, compared())
	switch {
	case err == nil && bytes.Equal(opened, compared()):
		r.add(Finding{Good, about, fmt.Sprintf("it is the same key as in %q", before.token), ""})
	case err == nil || errors.Is(err, hsm.ErrCorrupt) || errors.Is(err, hsm.ErrKind) ||
		errors.Is(err, hsm.ErrNotFound) && !errors.Is(err, hsm.ErrUnavailable): // one of another mechanism
		r.fail(about, fmt.Errorf("%w: it is another key than the one of this name in %q, and would open nothing that is wrapped there", errOther, before.token))
	default:
		r.fail(about, fmt.Errorf("comparing it with the one in %q: %w", before.token, err))
	}
}

// introduce makes a key known that no token before had.
func (r *Report) introduce(ctx context.Context, c task, token *hsm.Token, key hsm.Key) {
	sealed, err := token.Encrypt(ctx, key, compared(), compared())
	if err != nil {
		r.fail("key "+key.Label, err)
		return
	}
	c.known[key.Label] = witness{r.Selected, key, sealed}
	if c.further {
		r.add(Finding{
			Warning, "key " + key.Label, "no token before this one has it",
			"new versions are made in the first token: find out why it is not there, and copy it with the vendor's tool",
		})
	}
}

// errOther is a key that only has the name of another.
var errOther = fmt.Errorf("%w: the tokens differ", hsm.ErrUnsafe)
