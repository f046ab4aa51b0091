package mutation

// What is verified in gateway/keys without a condition of its own.

const inKeys = "gateway/keys/"

// kept decide whether an answer of the KMS is used, used again, or asked for anew.
func kept() []place {
	const bucketkeys, cache, client, lease, signing = inKeys + "bucketkeys.go", inKeys + "cache.go", inKeys + "client.go", inKeys + "lease.go", inKeys + "signing.go"
	return []place{
		never(bucketkeys, "strict: asked for each time", "if ", `b.Strict`),
		never(bucketkeys, "strict: not kept", "if ", `answer.GetNoCache()`),
		held(bucketkeys, "fresh: not older than a revocation", "|| ", `got.fresh`),
		never(bucketkeys, "kept: of another bucket", "|| ", `e.value.space != w.space`),
		never(bucketkeys, "kept: without its key", "|| ", `e.value.key.IsZero()`),
		held(bucketkeys, "refused: of this bucket", "&& ", `e.value.space == w.space`),
		{bucketkeys, "life: counted from the request", `answer, generation, sent)`, `answer, generation, mutantElse(OFF, sent, c.clock.now()))`},

		held(cache, "kept: of this generation", "ok && ", `e.generation == generation`),
		held(cache, "kept: alive", "&& ", `e.alive(now)`),
		never(cache, "life: only shortened", "if ", `old <= int64(until)`),

		{bucketkeys, "shared: by those who want this key", `name := w.String()`, `name := mutantElse(OFF, w.String(), "")`},
		{signing, "shared: by those who want this key", `fmt.Sprintf("signing %q ", s)`, `mutantElse(OFF, fmt.Sprintf("signing %q ", s), "signing ")`},
		{inKeys + "buckets.go", "shared: by those who want this bucket", `"bucket " + name + " "`, `mutantElse(OFF, "bucket "+name+" ", "bucket ")`},
		never(client, "shared: the error for all", "if ", `answer.Err != nil`),

		held(lease, "lease: has not run out", "h != nil && ", `l.client.clock.now() < h.until`),
		{lease, "lease: counted from the request", `until: sent + instant(ttl)`, `until: mutantElse(OFF, sent, l.client.clock.now()) + instant(ttl)`},
		never(lease, "lease: another ends the stream", "!first && ", `old.id != next.id`),

		{signing, "old key: length", `switch len(answer.GetOldKey()) {`, `switch mutantElse(OFF, len(answer.GetOldKey()), len(answer.GetOldKey())/32*32) {`},
		{signing, "life: no longer than the old secret's", `min(ttl, answer.GetOldTtl().AsDuration())`, `min(ttl, mutantElse(OFF, answer.GetOldTtl().AsDuration(), ttl))`},
		{signing, "life: counted from the request", `generation, sent, ttl)`, `generation, mutantElse(OFF, sent, c.clock.now()), ttl)`},

		held(inKeys+"policies.go", "kept: of this generation", "held != nil && ", `held.generation == generation`),
		held(inKeys+"policies.go", "fresh: not older than a revocation", "|| ", `generation == c.generation.load()`),
		held(inKeys+"policies.go", "kept: not older than a revocation", "if ", `generation == c.generation.load()`),
	}
}

// revocations are what is told of revocations and removals, and what comes of it.
func revocations() []place {
	const lease, removed, revoked = inKeys + "lease.go", inKeys + "removed.go", inKeys + "revoked.go"
	return []place{
		{lease, "renewed: removals", `removed(answer.GetRemovedSpaces())`, `removed(mutantElse(OFF, answer.GetRemovedSpaces(), nil))`},
		{lease, "renewed: keys that are full", `replaced(answer.GetFull())`, `replaced(mutantElse(OFF, answer.GetFull(), nil))`},
		{
			lease, "renewed: revocations", `l.client.heed(answer.GetRevocation(), sent)`,
			`if !mutantOff(OFF) { l.client.heed(answer.GetRevocation(), sent) }`,
		},
		{
			revoked, "pushed: revocations", `c.heed(stream.Msg().GetRevocation(), sent)`,
			`if !mutantOff(OFF) { c.heed(stream.Msg().GetRevocation(), sent) }`,
		},
		{removed, "removed: remembered", `c.gone.Add(Space(space), struct{}{})`, `if !mutantOff(OFF) { c.gone.Add(Space(space), struct{}{}) }`},
		{removed, "blocked: for running transfers", `blocked: true`, `blocked: !mutantOff(OFF)`},
		never(removed, "removed: records", "ok && ", `gone[e.value.Space]`),
		never(removed, "removed: keys", "ok && ", `gone[e.value.space]`),
		never(revoked, "heeded: overtaken", "|| ", `overtaken`),
		held(revoked, "heeded: unless it was asked for later", "v.epoch && ", `sent <= v.heard`),
		never(revoked, "heeded: known", "(", `r.GetEpoch() == v.epoch`),
		never(revoked, "heeded: of anything else", "v.known && ", `r.GetGeneral() != v.general`),
		never(revoked, "blocked: keys", "ok && ", `unusable[e.value.kek] && !e.value.blocked`),
		{revoked, "blocked: signing keys", `ok && unusable[e.value.kek] {`, `ok && !mutantOff(OFF) && unusable[e.value.kek] {`},
		held(revoked, "kept: not older than a revocation", "if ", `fresh`),
		{revoked, "canary: kept", "id: *id})\n\tif held", "id: *id})\n\tif !mutantOff(OFF) && held"},
		never(revoked, "canary: known to be blocked", "|| ", `!errors.Is(c.Live(*id), ErrBlocked)`),
		{revoked, "heard: the KMS has answered", "if err == nil {\n\t\tc.told", "if err == nil || mutantOff(OFF) {\n\t\tc.told"},
		{revoked, "stream: not silent for a lease", `silence := c.lease.ttl()`, `silence := mutantElse(OFF, c.lease.ttl(), 1<<62)`},
		never(inKeys+"seals.go", "full: an id", "if ", `len(id) != len(sealedKey{}.id)`),
	}
}

// records are what is believed of a bucket, and for how long.
func records() []place {
	const buckets, keys = inKeys + "buckets.go", inKeys + "keys.go"
	return []place{
		held(buckets, "kept: active", "err == nil && ", `b.Active`),
		held(buckets, "kept: not older than a change", "&& ", `generation == c.bucketGeneration()`),
		never(buckets, "removed: before the next renewal", "if ", `cached`),
		held(buckets, "record: active", "Active: ", `m.GetState() != string(kms.BucketCreating)`),
		held(buckets, "record: being adopted", "if ", `m.GetState() == string(kms.BucketAdopting)`),
		held(buckets, "record: with a cut-off", "&& ", `m.GetCutOff() != nil`),
		{buckets, "record: guarded", `b.Guarded = m.GetLedger() != ""`, `b.Guarded = mutantElse(OFF, m.GetLedger() != "", false)`},
		held(keys, "plaintext: the bucket is being adopted", "return ", `!b.Adopting.CutOff.IsZero()`),
		held(keys, "plaintext: not sealed yet", "&& ", `key > b.Adopting.SealedTo`),
		held(keys, "plaintext: not newer than the cut-off", "&& ", `!modified.After(b.Adopting.CutOff)`),
	}
}

// ledgers are what a ledger vouches for, and what it is told.
func ledgers() []place {
	const ledger = inKeys + "ledger.go"
	return []place{
		{ledger, "verdict: known", `Known: ok,`, `Known: mutantElse(OFF, ok, true),`},
		{ledger, "verdict: doubtful", `Doubtful: v.entry.Doubtful(v.now)`, `Doubtful: mutantElse(OFF, v.entry.Doubtful(v.now), false)`},
		held(ledger, "verdict: may take effect still", "ok && ", `w.Alive(v.now)`),
		held(ledger, "tag: asked for", "if ", `slices.Contains(tags, Mark(w.Tag))`),
		held(ledger, "view: the same revision", "return ", `v.revision == other.revision`),
		held(ledger, "view: guarded", "Guarded: ", `answer.GetStage() != ""`),
		{ledger, "told: what the store has answered", `Applied: applied,`, `Applied: mutantElse(OFF, applied, true),`},
		{ledger, "settled: as it was looked at", `Revision: s.Revision()`, `Revision: mutantElse(OFF, s.Revision(), 0)`},
	}
}

// unheeded are errors of the KMS that something stands between.
func unheeded() []place {
	err := func(path, id, after string) place {
		return place{inKeys + path, id, "if err != nil {\n\t\t" + after, "if err != nil && !mutantOff(OFF) {\n\t\t" + after}
	}
	return []place{
		err("adoptions.go", "BeginAdoption: the KMS's error", `return fmt.Errorf("keys: beginning the adoption`),
		err("adoptions.go", "Adopt: any error", `return Adoption{}, fmt.Errorf(`),
		err("bucketkeys.go", "UnconfirmMirrors: the KMS's error", `return fmt.Errorf("keys: unconfirming`),
		err("ledger.go", "LookLedger: any error", `return LedgerView{}, fmt.Errorf(`),
		err("ledger.go", "SettleLedger: the KMS's error", `return fmt.Errorf("keys: settling`),
		err("ledger.go", "Learn: the KMS's error", `return nil, fmt.Errorf("keys: learning`),
	}
}
