package mutation

import "slices"

// place is a verification that no refusal stands beside: what keys, nonces and codes are
// bound to, what a request is pinned to, and comparisons that choose what is used. OFF in its
// new text stands for its name.
type place struct{ path, id, old, new string }

func places() []place {
	return slices.Concat(bindings(), comparisons(), pins(), verdicts(), cuts(), kept(), revocations(), records(), ledgers(), unheeded())
}

// held is an operand that counts as true when it is switched off; before is what stands in
// front of it.
func held(path, id, before, operand string) place {
	return place{path, id, before + operand, before + "(mutantOff(OFF) || " + operand + ")"}
}

// never is an operand that counts as false when it is switched off.
func never(path, id, before, operand string) place {
	return place{path, id, before + operand, before + "(!mutantOff(OFF) && " + operand + ")"}
}

func bindings() []place {
	const message, token = "gateway/sealed/message.go", "gateway/sealed/token.go"
	return []place{
		{message, "nonce: index of the chunk", `^uint64(i))`, `^uint64(mutantElse(OFF, i, 0)))`},
		{message, "key: salt", `schemeLabel...), salt[:]...)`, `schemeLabel...), mutantElse(OFF, salt[:], nil)...)`},
		{message, "key: context", `, ctx...)`, `, mutantElse(OFF, ctx, nil)...)`},
		{message, "name: space", `[]byte(label), n.Space[:])`, `[]byte(label), mutantElse(OFF, n.Space[:], nil))`},
		{message, "name: key", `, n.Key)`, `, mutantElse(OFF, n.Key, ""))`},
		{message, "stash: upload", `, n.UploadID)`, `, mutantElse(OFF, n.UploadID, ""))`},
		{message, "part: number", `uint16(number))`, `uint16(mutantElse(OFF, number, 1)))`},
		{message, "token kept: upload", `, at.UploadID)`, `, mutantElse(OFF, at.UploadID, ""))`},
		{message, "token kept: number", `AppendUint16(b, uint16(at.Number))`, `AppendUint16(b, uint16(mutantElse(OFF, at.Number, 1)))`},
		{message, "token kept: ETag", `, at.ETag)`, `, mutantElse(OFF, at.ETag, ""))`},
		{token, "token: upload", `appendLP(nil, at.UploadID)`, `appendLP(nil, mutantElse(OFF, at.UploadID, ""))`},
		{token, "token: number", `, uint16(at.Number)))`, `, uint16(mutantElse(OFF, at.Number, 1))))`},
		{token, "token: ETag", `appendLP(nil, at.ETag)`, `appendLP(nil, mutantElse(OFF, at.ETag, ""))`},
		{token, "token: claims", `h.Write(claims)`, `h.Write(mutantElse(OFF, claims, nil))`},

		{"gateway/objects/service.go", "name: space", `Space: sealed.Space(b.Space)`, `Space: mutantElse(OFF, sealed.Space(b.Space), sealed.Space{})`},
		{"gateway/objects/service.go", "name: key", `, Key: key}`, `, Key: mutantElse(OFF, key, "")}`},
	}
}

func comparisons() []place {
	const envelope = "gateway/sealed/envelope.go"
	return []place{
		{"gateway/sealed/opener.go", "a whole read has a tail", `o.whole && o.done`, `o.whole && o.done && !mutantOff(OFF)`},
		{envelope, "base64: line breaks", `if strings.ContainsAny(text, "\r\n")`, `if !mutantOff(OFF) && strings.ContainsAny(text, "\r\n")`},
		{envelope, "base64: stray bits", `base64.RawURLEncoding.Strict()`, `mutantElse(OFF, base64.RawURLEncoding.Strict(), base64.RawURLEncoding)`},
		held(envelope, "single: length", "e.Kind == Single && ", `length <= MaxPartSize`),
		held(envelope, "single: salt", "&& ", `!e.Salt.IsZero()`),
		held(envelope, "multipart: length", "&& ", `length == noLength`),
		held(envelope, "multipart: no salt", "&& ", `e.Salt.IsZero()`),
	}
}

// pins are the ETags that requests of one read, copy or write are held together by.
func pins() []place {
	const objects = "gateway/objects/"
	matching := func(path, id, etag string) place {
		cond := "backends.Conditions{IfMatch: []string{" + etag + "}}"
		return place{objects + path, id, cond, "mutantElse(OFF, " + cond + ", backends.Conditions{})"}
	}
	plain := func(path, id, before, value, off string) place {
		return place{objects + path, id, before + value, before + "mutantElse(OFF, " + value + ", " + off + ")"}
	}
	return []place{
		matching("reader.go", "pin: a small window", "f.info.ETag"),
		matching("plain.go", "pin: plaintext", "f.info.ETag"),
		matching("copy.go", "pin: a copy through the gateway", "c.f.info.ETag"),
		matching("complete.go", "pin: a staged part", "last.ETag"),
		matching("adoptone.go", "pin: an object to be adopted", "e.ETag"),
		matching("adoptone.go", "pin: a range of it", "info.ETag"),
		matching("md5.go", "pin: an object's end", "info.ETag"),
		matching("delete.go", "pin: what is deleted", "h.found.info.ETag"),
		plain("get.go", "pin: a window", "cond.IfMatch = ", "[]string{f.info.ETag}", "nil"),
		plain("md5.go", "pin: what is replaced", "out.IfMatch = ", "[]string{f.info.ETag}", "nil"),
		plain("copy.go", "pin: a copy", "SourceIfMatch: ", "c.f.info.ETag", `""`),
		plain("copy.go", "pin: a copied piece", "r, ", "c.f.info.ETag", `""`),
		plain("copy.go", "pin: the source's version", "id.Version = ", "c.f.info.Version", `""`),
		plain("adoptone.go", "pin: what is sealed in place", "pinned: ", "object.ETag", `""`),
		plain("adoptone.go", "pin: what is sealed in place, in parts", "pinned: ", "info.ETag", `""`),
	}
}

// verdicts are answers of yes and no that decide what is believed.
func verdicts() []place {
	const objects = "gateway/objects/"
	return []place{
		held(objects+"get.go", "table: ETag", "return ", `c.etag == info.ETag`),
		held(objects+"get.go", "table: envelope", "&& ", `c.header == headerOf(info)`),
		held(objects+"get.go", "table: size", "&& ", `c.table.Stored() == info.Size`),
		held(objects+"get.go", "table: of this object", "ok && ", `known.of(f.info)`),
		never(objects+"get.go", "table: of the answer", "if ", `!known.of(object.Info)`),
		never(objects+"get.go", "table: If-Match goes to the backend", "|| ", `len(q.r.Conditions.IfMatch) > 0`),
		never(objects+"get.go", "table: so does a date", "|| ", `!q.r.Conditions.IfUnmodifiedSince.IsZero()`),
		{objects + "get.go", "table: space", `space: q.r.Bucket.Space`, `space: mutantElse(OFF, q.r.Bucket.Space, keys.Space{})`},
		{objects + "get.go", "table: key", `key: q.r.Key,`, `key: mutantElse(OFF, q.r.Key, ""),`},
		{objects + "get.go", "table: version", `version: q.r.Version}`, `version: mutantElse(OFF, q.r.Version, "")}`},

		held(objects+"plain.go", "plaintext: no envelope", "return ", `!ours`),
		held(objects+"plain.go", "plaintext: may be", "&& ", `b.MayBePlain(key, info.Modified)`),
		never(objects+"adoptone.go", "adopting: cut-off", "if ", `e.Modified.After(a.bucket.Adopting.CutOff)`),
		never(objects+"adoptone.go", "adopting: sealed already", "MetadataName]; ", `ours`),
		never(objects+"adopt.go", "adopting: the gateway's own", "if ", `Reserved(e.Key)`),
		{objects + "adoptbegin.go", "adopting: the rest of the second", `.Add(a.limits.grain - time.Nanosecond)`, `.Add(mutantElse(OFF, a.limits.grain, 0) - time.Nanosecond)`},
		{objects + "adoptbegin.go", "adopting: nothing is sealed within it", `time.After(a.limits.settle)`, `time.After(mutantElse(OFF, a.limits.settle, 0))`},

		never(objects+"complete.go", "completed: data key", "|| ", `!env.DEK.Equal(u.stash.DEK)`),
		held(objects+"complete.go", "listed part: number", "return ", `p.Number == number`),
		held(objects+"complete.go", "listed part: ETag", "&& ", `p.Part.ETag == etag`),
		never(objects+"tokens.go", "kept token: length", "|| ", `part.Length != n`),
		never(objects+"again.go", "made from: kind", "if ", `f.env.Kind != sealed.Multipart`),
		never(objects+"again.go", "made from: number of parts", "|| ", `len(r.Parts) != f.table.Len()`),
		never(objects+"again.go", "made from: part number", "|| ", `e.Number != p.Number`),
		never(objects+"again.go", "made from: salt", "|| ", `e.Salt != part.Salt`),
		never(objects+"again.go", "made from: length", "|| ", `e.Length != part.Length`),
		never(objects+"upload.go", "stash: asked for afresh", "|| ", `fresh`),
		held(objects+"md5.go", "shown ETag: not kept of a strict bucket", "b.MD5 && ", `!b.Strict`),
		never(objects+"etag.go", "ETag: that looks like an MD5", "	if ", `looksLikeMD5(visible)`),
		held(objects+"delete.go", "deleted: ETag", "return ", `tagged`),
		held(objects+"delete.go", "deleted: size", "&& ", `sized`),
		held(objects+"delete.go", "deleted: time", "&& ", `(r.IfModified.IsZero() || sameMoment(r.IfModified, st.Modified))`),
		held(objects+"mirror.go", "mirror: confirmed", "if ", `bk.Mirrored`),
		never(objects+"list.go", "hidden: objects", "return ", `Reserved(i.Key)`),
		never(objects+"list.go", "hidden: prefixes", "if ", `Reserved(prefix)`),
		never(objects+"list.go", "hidden: a prefix asked for", "if ", `strings.HasPrefix(r.Prefix, ReservedPrefix)`),
		never(objects+"capabilities.go", "hidden: versions", "return ", `Reserved(v.Key)`),
		held(objects+"capabilities.go", "hidden: prefixes of versions", "if ", `!Reserved(p)`),
	}
}

// cuts are what ends a transfer: a bound, or a key that may not be used any more.
func cuts() []place {
	const objects = "gateway/objects/"
	return []place{
		{objects + "put.go", "live: when the store has answered", `cmp.Or(err, g.live())`, `cmp.Or(err, mutantElse(OFF, g.live(), nil))`},
		{objects + "copy.go", "live: when a copy is made", `return s.keys.Live(bk.ID)`, `return mutantElse(OFF, s.keys.Live(bk.ID), nil)`},
		{objects + "upload.go", "live: when an upload is made", `err = s.keys.Live(bk.ID)`, `err = mutantElse(OFF, s.keys.Live(bk.ID), nil)`},
		{objects + "complete.go", "live: when an object is made", `return u.live()`, `return mutantElse(OFF, u.live(), nil)`},
		{objects + "head.go", "conditions: after the object was looked at", `return f, q.check(f)`, `return f, mutantElse(OFF, q.check, func(*found) error { return nil })(f)`},
		{objects + "plain.go", "plaintext: no more than the span", `io.LimitReader(b.body, b.Span.Length)`, `mutantElse[io.Reader](OFF, io.LimitReader(b.body, b.Span.Length), b.body)`},
		{objects + "buckets.go", "bound: the gateway's own objects", `io.LimitReader(o.Body, maxReserved)`, `mutantElse[io.Reader](OFF, io.LimitReader(o.Body, maxReserved), o.Body)`},
	}
}
