// Package keyceremony makes KEKs in an HSM before witnesses: it makes the keys, reads
// back what the token says of them, tests them, and writes a record with one form of
// text, which each witness signs. Whoever has the folder can verify it without the HSM,
// and with it, whether the token still has what was recorded.
//
// It refuses to know what keys are used for later, and who may use them: the KMS takes
// them over as it would after the loss of its state. It proves nothing of what happens
// to a key in the token after the ceremony but that it is there.
package keyceremony

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chatelaine/hsm"
	"chatelaine/kms"
	"chatelaine/kms/pkcs11"
)

// Plan says what is to be made.
type Plan struct {
	// Store says which token, and how its keys are named and made, as for the KMS. The
	// PIN is required and tried once. Its Failover is not used: keys are copied by the
	// vendor's means. HSM.ReadOnly is not heeded.
	Store pkcs11.Config
	// Keys are the KEK versions. Required, each once.
	Keys []kms.KeyRef
	// Witnesses sign the record. At least one is required.
	Witnesses []Witness
	// Folder gets the record and its statement. It is made, or must be empty.
	Folder string
	Reason string // why, for the record; up to 512 bytes
	Tool   string // name and version of the program
	// Agree, when set, is asked before the PIN is given to the token. The record has the
	// module, the token, the labels and the witnesses by then. An error of it ends the
	// ceremony, and nothing was made.
	Agree func(*Record) error
}

const maxReason = 512

// order is a key that is to be made.
type order struct {
	ref kms.KeyRef
	key hsm.Key
}

// orders checks the plan, and says how its keys are called.
func (p Plan) orders() ([]order, error) {
	problems := []error{checkWitnesses(p.Witnesses)}
	if p.Folder == "" || len(p.Keys) == 0 || len(p.Keys) > maxKeys || len(p.Reason) > maxReason {
		problems = append(problems, fmt.Errorf("%w: it wants a folder, 1 to %d keys, and a reason of at most %d bytes", kms.ErrInvalid, maxKeys, maxReason))
	}
	var out []order
	for i, ref := range p.Keys {
		key, err := p.Store.Key(ref)
		if err == nil && !slices.Contains(hsm.Mechanisms(), key.Mechanism) {
			err = fmt.Errorf("%w: mechanism %q of %s: want one of %q", kms.ErrInvalid, key.Mechanism, ref, hsm.Mechanisms())
		}
		if slices.Contains(p.Keys[:i], ref) {
			err = fmt.Errorf("%w: %s is named twice", kms.ErrInvalid, ref)
		}
		problems = append(problems, err)
		out = append(out, order{ref, key})
	}
	return out, errors.Join(problems...)
}

// Make holds the ceremony: either all keys are in the token and the folder is written,
// or an error says what is left, which is nothing unless the token refused to destroy a
// key again or was lost. Errors: kms.ErrInvalid, kms.ErrExists (the folder, or a key of
// that label), kms.ErrUnsafe (a key is not as it was asked for), those of hsm.Open and
// hsm.Token.Generate, Agree's, ctx's.
func Make(ctx context.Context, p Plan) (*Record, error) {
	orders, err := p.orders()
	if err != nil {
		return nil, fmt.Errorf("keyceremony: reading the plan: %w", err)
	}
	r := &Record{
		Version: recordVersion, ID: newID(), Tool: clean(p.Tool), Reason: clean(p.Reason),
		Started: now(), Keys: []Key{}, Witnesses: p.Witnesses,
	}
	if r.Module.File, r.Module.SHA256, err = hashModule(p.Store.HSM.Module); err != nil {
		return nil, err
	}
	folder, err := reserve(p.Folder)
	if err != nil {
		return nil, err
	}
	written := false
	err = withToken(ctx, p.Store.HSM, orders[0].key.Mechanism, func(s seen) error {
		r.take(s)
		for _, o := range orders {
			r.Keys = append(r.Keys, Key{KEK: o.ref.String(), Label: o.key.Label, Mechanism: string(o.key.Mechanism)})
		}
		if p.Agree == nil {
			return nil
		}
		return p.Agree(r)
	}, func(token *hsm.Token) error {
		err := makeAll(ctx, token, orders, r, folder)
		written = err == nil
		return err
	})
	if written {
		return r, err // the token did not let go, at worst
	}
	return nil, errors.Join(err, folder.giveUp())
}

// seen is what module and token say of themselves to everybody.
type seen struct {
	module hsm.LibraryFacts
	slot   uint
	token  hsm.TokenFacts
}

// take records what was seen.
func (r *Record) take(s seen) {
	m, t := s.module, s.token
	r.Module.Path, r.Module.Manufacturer, r.Module.Description = clean(m.Path), clean(m.Manufacturer), clean(m.Description)
	r.Module.Version, r.Module.Cryptoki = clean(m.Version), clean(m.Cryptoki)
	r.Token = Token{
		Label: clean(t.Label), Manufacturer: clean(t.Manufacturer), Model: clean(t.Model),
		Serial: clean(t.Serial), Firmware: clean(t.Firmware), Slot: s.slot,
	}
}

// withToken has look see the token before the PIN is tried, and then do work in it.
func withToken(ctx context.Context, cfg hsm.Config, probe hsm.Mechanism, look func(seen) error, do func(*hsm.Token) error) (err error) {
	lib, err := hsm.LoadWith(cfg.Module, cfg.Parameters)
	if err != nil {
		return fmt.Errorf("keyceremony: %w", err)
	}
	defer func() { err = errors.Join(err, lib.Close()) }()
	s, err := survey(lib, cfg.Token)
	if err != nil {
		return fmt.Errorf("keyceremony: looking for the token: %w", err)
	}
	if err := look(s); err != nil {
		return err
	}
	cfg.Library, cfg.Mechanism, cfg.MaxSessions, cfg.ReadOnly = lib, probe, 1, false
	token, err := hsm.Open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("keyceremony: %w", err)
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	return do(token)
}

// survey finds the one token that is selected.
func survey(lib *hsm.Library, want hsm.Selector) (seen, error) {
	about, slots, err := lib.Survey()
	if err != nil {
		return seen{}, err
	}
	var found []seen
	var there, blank []string
	for _, s := range slots {
		if s.Token == nil {
			blank = append(blank, fmt.Sprint(s.ID))
			continue
		}
		there = append(there, fmt.Sprintf("%q", s.Token.Label))
		if want.Matches(s.ID, *s.Token) {
			found = append(found, seen{about, s.ID, *s.Token})
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return seen{}, fmt.Errorf("%w: %q is not there; the module has the tokens [%s], and in slots [%s] none, or one that its security officer must initialise first",
			hsm.ErrNoToken, want, strings.Join(there, ", "), strings.Join(blank, ", "))
	}
	return seen{}, fmt.Errorf("%w: %q is the name of %d tokens: give a serial number", hsm.ErrAmbiguous, want, len(found))
}

// makeAll makes the keys and writes the record, or takes back what it made.
func makeAll(ctx context.Context, token *hsm.Token, orders []order, r *Record, folder *reserved) error {
	for _, o := range orders {
		if err := absent(ctx, token, o.key); err != nil {
			return fmt.Errorf("%w; nothing was made", err)
		}
	}
	var made []hsm.Key
	for i, o := range orders {
		if _, err := token.Generate(ctx, o.key); err != nil {
			return takeBack(ctx, token, made, errors.Join(fmt.Errorf("keyceremony: making %s: %w", o.ref, translate(err)), uncertain(ctx, token, o.key, err)))
		}
		made = append(made, o.key)
		var err error
		if r.Keys[i], err = inspect(ctx, token, o.ref.String(), o.key); err != nil {
			return takeBack(ctx, token, made, fmt.Errorf("keyceremony: examining %s: %w", o.ref, err))
		}
	}
	r.Ended = now()
	err := sameModule(r.Module)
	if err == nil {
		err = folder.save(r)
	}
	if err != nil {
		return takeBack(ctx, token, made, err)
	}
	return nil
}

// absent refuses a label that something in the token has.
func absent(ctx context.Context, token *hsm.Token, key hsm.Key) error {
	for _, label := range key.Labels() {
		objects, err := token.Describe(ctx, label)
		if err == nil && len(objects) > 0 {
			err = fmt.Errorf("%w: the token has a %s %q", kms.ErrExists, objects[0].Class, label)
		}
		if err != nil {
			return fmt.Errorf("keyceremony: looking whether the label is free: %w", err)
		}
	}
	return nil
}

// uncertain says of a call that was not waited for whether its key is there. It may be
// somebody else's by now, so it is not destroyed.
func uncertain(ctx context.Context, token *hsm.Token, key hsm.Key, err error) error {
	if !errors.Is(err, hsm.ErrUnavailable) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	// There is one session, so this comes after the call.
	switch err := absent(ctx, token, key); {
	case err == nil:
		return nil
	case errors.Is(err, kms.ErrExists):
		return fmt.Errorf("the token made %q nevertheless: destroy it with the vendor's tool", key.Label)
	default:
		return fmt.Errorf("the token may have made %q nevertheless: look with `chatelaine hsm doctor`, and destroy it with the vendor's tool: %w", key.Label, err)
	}
}

// afterwards is for what is to be done also when ctx has ended.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
}

// takeBack destroys keys that were just made: nothing was wrapped under them. It returns
// why, and which keys are still there.
func takeBack(ctx context.Context, token *hsm.Token, made []hsm.Key, why error) error {
	if len(made) == 0 {
		return why
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	var left []error
	for _, key := range made {
		if err := token.Destroy(ctx, key); err != nil {
			left = append(left, fmt.Errorf("%q was made and is still in the token: destroy it with the vendor's tool: %w", key.Label, err))
		}
	}
	if len(left) == 0 {
		return fmt.Errorf("%w; what was made before was destroyed again", why)
	}
	return errors.Join(append([]error{why}, left...)...)
}

// translate puts the contract's word before errors that callers tell apart.
func translate(err error) error {
	for _, t := range []struct{ hsm, kms error }{{hsm.ErrExists, kms.ErrExists}, {hsm.ErrUnsafe, kms.ErrUnsafe}, {hsm.ErrRole, kms.ErrDenied}} {
		if errors.Is(err, t.hsm) {
			return fmt.Errorf("%w: %w", t.kms, err)
		}
	}
	return err
}

// hashModule finds the library's file, and its SHA-256 in hex.
func hashModule(path string) (file, sum string, err error) {
	if !filepath.IsAbs(path) {
		return "", "", fmt.Errorf("keyceremony: reading module %q: %w: give its whole path, so that it can be told which file it is", path, kms.ErrInvalid)
	}
	if file, err = filepath.EvalSymlinks(path); err == nil {
		sum, err = hashFile(file)
	}
	if err != nil {
		return "", "", fmt.Errorf("keyceremony: reading module %q: %w: %w", path, kms.ErrInvalid, err)
	}
	return file, sum, nil
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// sameModule tells whether the file changed since it was hashed.
func sameModule(m Module) error {
	sum, err := hashFile(m.File)
	if err == nil && sum != m.SHA256 {
		err = fmt.Errorf("%w: it was changed during the ceremony", kms.ErrUnsafe)
	}
	if err != nil {
		return fmt.Errorf("keyceremony: reading module %q again: %w", m.File, err)
	}
	return nil
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// clean makes text of what a module may have filled with anything: a record in JSON
// keeps UTF-8 alone.
func clean(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
