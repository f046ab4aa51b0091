package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"chatelaine/kms"
)

// Vote is what one person signed about a request.
type Vote struct {
	Person    string    `json:"person"`
	Verdict   Verdict   `json:"verdict"`
	Signature string    `json:"signature"` // over Request.Statement(Verdict)
	At        time.Time `json:"at"`
}

// Record is a request as the registry keeps it, for ever.
type Record struct {
	// Statement is Request.Statement(Ask).
	Statement string `json:"statement"`
	// Asked is the requester's signature over Statement. Empty where the service knew
	// the requester by the actor's name.
	Asked string `json:"asked,omitempty"`
	// Attachment is the document whose digest is the operation's param "digest".
	Attachment []byte `json:"attachment,omitempty"`
	Votes      []Vote `json:"votes,omitempty"`
	// Quorum is when the quorum was first there; the time lock counts from it.
	Quorum *time.Time `json:"quorum,omitempty"`
	// Closed is StateUsed, StateRejected or StateExpired: it never changes again.
	Closed   State      `json:"closed,omitempty"`
	ClosedAt *time.Time `json:"closed_at,omitempty"`
}

func (r *Record) close(s State, at time.Time) { r.Closed, r.ClosedAt = s, &at }

// Ruleset is one version of the rules, with the proof that it came to be rightly: the
// ceremony for the first, an approved request for every other.
type Ruleset struct {
	Number   uint64    `json:"number"` // from 1, by 1
	Text     []byte    `json:"text"`
	At       time.Time `json:"at"`
	Ceremony *Ceremony `json:"ceremony,omitempty"`
	Change   *Record   `json:"change,omitempty"`
}

// version is how requests name the rules.
func (s Ruleset) version() string { return versionOf(s.Number, s.Text) }

func versionOf(number uint64, text []byte) string {
	return fmt.Sprintf("%d:%s", number, digestOf(text))
}

// Ceremony is how the first rules came to be.
type Ceremony struct {
	Statement  string   `json:"statement"`
	Signatures []string `json:"signatures"` // one of each person who has keys
}

// head says which rules hold. Its revision is a condition of all that they permit.
type head struct {
	Version string `json:"version"`
	Number  uint64 `json:"number"`
}

// instance tells this registry from all others.
type instance struct {
	ID string `json:"id"`
}

// opened is an index entry: an approved use of a KEK. It is a hint where to look; the
// record that it names is what counts.
type opened struct {
	ID    string    `json:"id"`
	Until time.Time `json:"until"`
}

// Where records lie.
const (
	prefix       = "approval/"
	headKey      = prefix + "rules"
	instanceKey  = prefix + "instance"
	openedKey    = prefix + "opened"
	rulesetsKey  = prefix + "rulesets/"
	requestsKey  = prefix + "requests/"
	recordSchema = 1
)

func rulesetKey(number uint64) string { return fmt.Sprintf("%s%08d", rulesetsKey, number) }
func requestKey(id string) string     { return requestsKey + id }

// document is a record with its schema, as in package kms.
type document struct {
	Schema int             `json:"schema"`
	Record json.RawMessage `json:"record"`
}

func put[T any](key string, record T) (kms.Item, error) {
	body, err := json.Marshal(record)
	if err == nil {
		body, err = json.Marshal(document{Schema: recordSchema, Record: body})
	}
	if err != nil {
		return kms.Item{}, fmt.Errorf("approval: encoding %q: %w", key, err)
	}
	return kms.Item{Key: key, Value: body}, nil
}

func decode[T any](item kms.Item) (T, error) {
	var doc document
	var record T
	err := json.Unmarshal(item.Value, &doc)
	if err == nil && doc.Schema != recordSchema {
		err = fmt.Errorf("record has schema %d, this program knows %d", doc.Schema, recordSchema)
	}
	if err == nil {
		err = json.Unmarshal(doc.Record, &record)
	}
	if err != nil {
		return record, fmt.Errorf("approval: decoding %q: %w", item.Key, err)
	}
	return record, nil
}

// readMaybe gets a record; where there is none, the zero record with the condition
// that there still is none.
func readMaybe[T any](ctx context.Context, r kms.Registry, key string) (T, kms.Condition, error) {
	var zero T
	item, err := r.Get(ctx, key)
	if errors.Is(err, kms.ErrNotFound) {
		return zero, kms.Condition{Key: key}, nil
	}
	if err != nil {
		return zero, kms.Condition{}, err
	}
	record, err := decode[T](item)
	return record, kms.Condition{Key: key, Revision: item.Revision}, err
}
