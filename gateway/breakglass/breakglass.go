// Package breakglass reads sealed objects when there is nothing left but them: from a
// backend or a file, with the mirrors of their bucket keys and a provider that holds the
// KEKs. It needs no KMS, no registry and no gateway, and writes nothing to a backend.
//
// It refuses to release a byte that is not authenticated, as the gateway does. What a
// gateway decides it knows nothing of: users, policies, blocks.
package breakglass

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
	"chatelaine/kms"
)

// Source is where stored bytes come from: a backends.Store, or a File.
type Source interface {
	// Get is that of backends.Store.
	Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error)
}

// Reader reads objects. It may be copied, and used concurrently as far as its Source can.
type Reader struct {
	Source Source
	Keys   *Keys
	// Suite is the zero value, or has a pool of buffers.
	Suite sealed.Suite
}

// Object is an object that is about to be read as a whole. It is for one goroutine.
type Object struct {
	Info     backends.Info
	Envelope sealed.Envelope
	Mirror   kms.Mirror // of its bucket key: it was proved
	Table    *sealed.Table

	body   io.ReadCloser
	opener *sealed.Opener
}

// attempts is how often an object is begun with that is replaced meanwhile.
const attempts = 3

// Open finds out where everything lies in an object. That takes one request, and for
// kind Multipart another one. The caller closes the Object.
//
// Errors: ErrNoKey, objects.ErrNotSealed, sealed.ErrCorrupt, sealed.ErrUnsupported, those
// of the Source, and those of a provider that may work later.
func (r Reader) Open(ctx context.Context, id backends.ObjectID) (*Object, error) {
	for attempt := 1; ; attempt++ {
		o, err := r.open(ctx, id)
		if err == nil {
			return o, nil
		}
		if !errors.Is(err, backends.ErrPrecondition) || attempt == attempts {
			return nil, fmt.Errorf("breakglass: opening %q: %w", id.Key, err)
		}
	}
}

func (r Reader) open(ctx context.Context, id backends.ObjectID) (*Object, error) {
	answer, err := r.Source.Get(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	o := &Object{Info: answer.Info, body: answer.Body}
	if err := r.prepare(ctx, id, o); err != nil {
		return nil, errors.Join(err, o.body.Close())
	}
	return o, nil
}

// prepare opens the envelope, and the trailer of kind Multipart.
func (r Reader) prepare(ctx context.Context, id backends.ObjectID, o *Object) (err error) {
	if o.Envelope, o.Mirror, err = r.envelope(ctx, id.Key, o.Info); err != nil {
		return err
	}
	if o.Envelope.Kind == sealed.Single {
		o.Table, err = sealed.SingleTable(o.Envelope, o.Info.Size)
	} else {
		o.Table, err = r.trailer(ctx, id, o.Info, o.Envelope)
	}
	if err != nil {
		return err
	}
	o.opener, err = r.Suite.NewOpener(o.Table, o.Envelope.DEK, o.body, sealed.Read{
		Window: sealed.Window{Length: sealed.ToEnd}, N: o.Table.Length(),
	})
	return err
}

// envelope authenticates what the Source says of an object.
func (r Reader) envelope(ctx context.Context, key string, info backends.Info) (sealed.Envelope, kms.Mirror, error) {
	header, id, err := headerOf(info)
	if err != nil {
		return sealed.Envelope{}, kms.Mirror{}, err
	}
	b, err := r.Keys.find(ctx, id)
	if err != nil {
		return sealed.Envelope{}, kms.Mirror{}, err
	}
	space, err := spaceOf(b.mirror)
	if err != nil {
		return sealed.Envelope{}, kms.Mirror{}, err
	}
	e, err := r.Suite.OpenEnvelope(header, b.key, sealed.ObjectName{Space: space, Key: key})
	return e, b.mirror, err
}

func headerOf(info backends.Info) (string, sealed.KeyID, error) {
	header, ok := info.Attributes.Metadata[sealed.MetadataName]
	if !ok {
		return "", sealed.KeyID{}, objects.ErrNotSealed
	}
	id, err := sealed.EnvelopeKeyID(header)
	return header, id, err
}

// trailer reads the table of an object of either kind.
func (r Reader) trailer(ctx context.Context, id backends.ObjectID, info backends.Info, e sealed.Envelope) (*sealed.Table, error) {
	w, err := sealed.TrailerWindow(info.Size)
	if err != nil {
		return nil, err
	}
	id.Version = info.Version
	answer, err := r.Source.Get(ctx, id, &backends.GetOptions{
		Range:      &backends.Range{Offset: w.Offset, Length: w.Length},
		Conditions: backends.Conditions{IfMatch: []string{info.ETag}},
	})
	if err != nil {
		return nil, fmt.Errorf("reading the trailer: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	data := make([]byte, w.Length)
	if _, err := io.ReadFull(answer.Body, data); err != nil {
		return nil, fmt.Errorf("reading the trailer: %w", err)
	}
	if e.Kind == sealed.Single {
		return r.Suite.OpenSingleTrailer(data, e, info.Size)
	}
	return r.Suite.OpenTrailer(data, e.DEK, info.Size)
}

// WriteTo writes the plaintext to w, up to 1 MiB at a time, each batch only once its tags
// are verified, and the last only once the trailer and the whole are. After an error,
// what was written is authentic, but not all. It may be called once.
func (o *Object) WriteTo(w io.Writer) (int64, error) {
	n, err := o.opener.WriteTo(w)
	if err != nil {
		return n, fmt.Errorf("breakglass: reading %q: %w", o.Info.Key, err)
	}
	return n, nil
}

// Close lets the Source's answer go.
func (o *Object) Close() error { return errors.Join(o.opener.Close(), o.body.Close()) }

// Outline is what can be said of a stored object without any key. Nothing in it is
// authenticated.
type Outline struct {
	Info        backends.Info
	KeyID       sealed.KeyID
	HeaderBytes int   // length of the envelope
	Length      int64 // plaintext bytes by the size law; -1 where nothing of that size is ours
	TrailerSize int64 // bytes of T by the footer; -1 where there is no footer
	Parts       int   // that a trailer of this size has; 0 where none has it
	Mirror      *kms.Mirror
	NoMirror    error // why Mirror is nil
}

// Look asks for the end of an object. Errors are those of Open that need no key.
func (r Reader) Look(ctx context.Context, id backends.ObjectID) (Outline, error) {
	out, err := r.look(ctx, id)
	if err != nil {
		return Outline{}, fmt.Errorf("breakglass: looking at %q: %w", id.Key, err)
	}
	return out, nil
}

const footerSize = 8

func (r Reader) look(ctx context.Context, id backends.ObjectID) (Outline, error) {
	answer, err := r.Source.Get(ctx, id, &backends.GetOptions{Range: &backends.Range{Offset: -footerSize}})
	if errors.Is(err, backends.ErrRange) {
		return Outline{}, fmt.Errorf("%w: it is stored as no bytes", sealed.ErrCorrupt)
	}
	if err != nil {
		return Outline{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	out := Outline{Info: answer.Info, TrailerSize: -1, Length: -1}
	header, key, err := headerOf(answer.Info)
	if err != nil {
		return out, err
	}
	if n, ok := sealed.PlainSize(answer.Size); ok {
		out.Length = n
	}
	footer, err := io.ReadAll(io.LimitReader(answer.Body, footerSize))
	if err != nil {
		return out, err
	}
	if len(footer) == footerSize && string(footer[4:]) == "CHO1" {
		out.TrailerSize = int64(binary.BigEndian.Uint32(footer))
		out.Parts = sealed.PartsOf(out.TrailerSize)
	}
	out.KeyID, out.HeaderBytes = key, len(header)
	out.Mirror, out.NoMirror = r.Keys.look(ctx, key)
	return out, nil
}

// Details are an object's envelope and table, authenticated. Its data is not: that takes
// reading it.
type Details struct {
	Info     backends.Info
	Envelope sealed.Envelope
	Mirror   kms.Mirror
	Table    *sealed.Table
}

// Inspect opens the envelope and the trailer of an object. Errors are those of Open.
func (r Reader) Inspect(ctx context.Context, id backends.ObjectID) (Details, error) {
	d, err := r.inspect(ctx, id)
	if err != nil {
		return Details{}, fmt.Errorf("breakglass: inspecting %q: %w", id.Key, err)
	}
	return d, nil
}

func (r Reader) inspect(ctx context.Context, id backends.ObjectID) (d Details, err error) {
	answer, err := r.Source.Get(ctx, id, &backends.GetOptions{Range: &backends.Range{Offset: -footerSize}})
	if err != nil {
		return d, err
	}
	_ = answer.Body.Close() // what it says of itself was all that was wanted
	d.Info = answer.Info
	if d.Envelope, d.Mirror, err = r.envelope(ctx, id.Key, d.Info); err != nil {
		return d, err
	}
	d.Table, err = r.trailer(ctx, id, d.Info, d.Envelope)
	return d, err
}
