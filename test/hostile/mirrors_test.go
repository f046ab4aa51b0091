package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/registry"
	"chatelaine/kms/softkey"
)

// vault is a KMS whose registry was lost: what is left are its KEKs and, in the cloud,
// the mirrors of the bucket keys.
type vault struct {
	provider *softkey.Provider
	buckets  []string
	spaces   map[string]string            // by bucket
	mirrors  map[string]map[string][]byte // by bucket and name
	secrets  map[string]kms.Secret        // by space and id
	made     sync.Map                     // a madeKey each, of the world, by id
}

func newVault(ctx context.Context, dir string) (*vault, error) {
	keys := filepath.Join(dir, "keys")
	provider, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: keys, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	v := &vault{
		provider: provider, buckets: []string{"films", "photos"}, spaces: map[string]string{},
		mirrors: map[string]map[string][]byte{}, secrets: map[string]kms.Secret{},
	}
	m, r, err := v.manager(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := m.EnsureKEK(ctx, "main"); err != nil {
		return nil, err
	}
	for _, name := range v.buckets {
		b, err := m.RegisterBucket(ctx, kms.NewBucket{Name: name, Store: "files", StoreName: name, Owner: "ann"})
		if err != nil {
			return nil, err
		}
		v.spaces[name], v.mirrors[name] = b.Space, map[string][]byte{}
		for range 3 {
			if err := v.epoch(ctx, m, r, name); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// manager is a KMS with an empty registry.
func (v *vault) manager(ctx context.Context) (*kms.Manager, kms.Registry, error) {
	r := registry.NewMemory()
	m, err := kms.NewManager(ctx, kms.Config{
		Registry: r, Providers: map[string]kms.Provider{softkey.Name: v.provider}, Development: true, Logger: zap.NewNop(),
	})
	return m, r, err
}

// epoch makes the current key of a bucket and then an old one.
func (v *vault) epoch(ctx context.Context, m *kms.Manager, r kms.Registry, bucket string) error {
	space := v.spaces[bucket]
	key, err := m.CurrentKey(ctx, space)
	if err != nil {
		return err
	}
	v.mirrors[bucket][key.ID.String()] = key.Record
	v.secrets[space+"/"+key.ID.String()] = key.Key
	item, err := r.Get(ctx, "current/"+space)
	if err != nil {
		return err
	}
	item.Value = bytes.Replace(item.Value, []byte(`"created":"20`), []byte(`"created":"10`), 1)
	return r.Commit(ctx, kms.Transaction{Put: []kms.Item{item}})
}

// lost are mirrors as the provider serves them.
type lost map[string]map[string][]byte

func (v *vault) copyMirrors() lost {
	out := lost{}
	for bucket, all := range v.mirrors {
		out[bucket] = maps.Clone(all)
	}
	return out
}

// one draws a mirror.
func (v *vault) one(g *gen) (bucket, name string) {
	bucket = v.buckets[g.IntN(len(v.buckets))]
	names := slices.Sorted(maps.Keys(v.mirrors[bucket]))
	return bucket, names[g.IntN(len(names))]
}

// mirror makes a kind. Forged are hints that the cloud could always forge, and keys
// that it keeps back.
func mirror(name string, forged bool, meddle func(g *gen, v *vault, l lost) string) kind {
	return kind{name: "mirror: " + name, older: forged, over: func(t *trial) (string, verdict) {
		l := t.vault.copyMirrors()
		detail := meddle(t.gen, t.vault, l)
		v := t.vault.recover(t.ctx, l, forged)
		t.view.struck.Store(1)
		if v.outcome == wrong {
			v.why = fmt.Sprintf("%s (%s): %s", name, detail, v.why)
		}
		return "recover", v
	}}
}

// recover rebuilds a registry, and compares each key that comes of it.
func (v *vault) recover(ctx context.Context, l lost, forged bool) verdict {
	m, _, err := v.manager(ctx)
	if err != nil {
		return lie("making a KMS: %v", err)
	}
	if _, err := m.AdoptKEK(ctx, "main", kms.KEKOptions{}); err != nil {
		return lie("taking over the KEK: %v", err)
	}
	report, err := read(ctx, m, l)
	if err != nil {
		return verdict{outcome: refused}
	}
	found, v2 := v.compare(ctx, m)
	switch {
	case v2.outcome == wrong:
		return v2
	case !report.Clean():
		return verdict{outcome: refused}
	case found == len(v.secrets):
		return verdict{outcome: truthful}
	case forged:
		return verdict{outcome: known}
	}
	return lie("%d of %d keys are there, and the report is clean: %+v", found, len(v.secrets), report)
}

func read(ctx context.Context, m *kms.Manager, l lost) (kms.RecoveryReport, error) {
	r, err := m.NewRecovery(kms.RecoveryOptions{Apply: true, Change: kms.Change{Actor: "ann", Reason: "drill"}})
	if err != nil {
		return kms.RecoveryReport{}, err
	}
	for _, bucket := range slices.Sorted(maps.Keys(l)) {
		if err := r.NewBucket(kms.RecoveredBucket{Name: bucket, Store: "files", StoreName: bucket, Owner: "ann"}); err != nil {
			return kms.RecoveryReport{}, err
		}
		for _, name := range slices.Sorted(maps.Keys(l[bucket])) {
			if err := r.AddMirror(ctx, name, l[bucket][name]); err != nil {
				return kms.RecoveryReport{}, err
			}
		}
	}
	return r.Finish(ctx)
}

// compare finds the keys that a KMS has. One that is not what it was, or is another
// bucket's, is wrong.
func (v *vault) compare(ctx context.Context, m *kms.Manager) (found int, _ verdict) {
	for bucket, names := range v.mirrors {
		for name := range names {
			var id kms.KeyID
			if err := id.UnmarshalText([]byte(name)); err != nil {
				return 0, lie("reading an id: %v", err)
			}
			for _, space := range v.spaces {
				got, err := m.BucketKey(ctx, space, id)
				if err != nil {
					continue
				}
				want, ours := v.secrets[space+"/"+name]
				if !ours || !got.Key.Equal(want) {
					return 0, lie("key %s of bucket %s is there with other bytes, or in another space", name, bucket)
				}
				found++
			}
		}
	}
	return found, verdict{}
}

func mirrors() []kind {
	return []kind{
		mirror("flipped", false, func(g *gen, v *vault, l lost) string {
			b, n := v.one(g)
			at := g.IntN(len(l[b][n]))
			l[b][n] = rope{l[b][n]}.flip(int64(at), g.mask()).bytes()
			return fmt.Sprintf("byte %d: %s", at, l[b][n])
		}),
		mirror("cut or extended", false, func(g *gen, v *vault, l lost) string {
			b, n := v.one(g)
			if at := g.IntN(len(l[b][n])); g.IntN(2) == 0 {
				l[b][n] = l[b][n][:at]
			} else {
				l[b][n] = append(bytes.Clone(l[b][n]), l[b][n][at:]...)
			}
			return string(l[b][n])
		}),
		mirror("swapped", false, func(g *gen, v *vault, l lost) string {
			b, n := v.one(g)
			for c, m := v.one(g); ; c, m = v.one(g) {
				if n != m {
					l[b][n], l[c][m] = l[c][m], l[b][n]
					return fmt.Sprintf("%s/%s and %s/%s", b, n, c, m)
				}
			}
		}),
		mirror("in another bucket", true, func(g *gen, v *vault, l lost) string {
			b, n := v.one(g)
			for _, c := range v.buckets {
				l[c][n] = l[b][n]
			}
			return b + "/" + n
		}),
		mirror("removed", true, func(g *gen, v *vault, l lost) string {
			b, n := v.one(g)
			delete(l[b], n)
			return b + "/" + n
		}),
		mirror("fields changed", true, func(g *gen, v *vault, l lost) string {
			b, n := v.one(g)
			_, other := v.one(g)
			l[b][n] = reworded(g, l[b][n], other, v.spaces[v.buckets[g.IntN(len(v.buckets))]])
			return string(l[b][n])
		}),
	}
}

// reworded changes one field of a record.
func reworded(g *gen, record []byte, id, space string) []byte {
	var fields map[string]any
	if err := json.Unmarshal(record, &fields); err != nil {
		panic(err)
	}
	changes := []struct {
		field string
		value any
	}{
		{"id", id},
		{"space", space},
		{"epoch", 1 + g.IntN(9)},
		{"kek", "other"},
		{"kek_version", 1 + g.IntN(3)},
		{"bucket", "elsewhere"},
		{"profile", "strict"},
		{"etag", "md5"},
		{"created", "2001-01-01T00:00:00Z"},
		{"wrapped", "AAAA"},
	}
	c := changes[g.IntN(len(changes))]
	fields[c.field] = c.value
	out, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return out
}
