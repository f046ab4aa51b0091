package mutation

import "slices"

// place is a verification that no refusal stands beside: what keys, nonces and codes are
// bound to, and comparisons that choose what is used. OFF in its new text stands for its
// name.
type place struct{ path, id, old, new string }

func places() []place {
	return slices.Concat(bindings(), comparisons())
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
	}
}

func comparisons() []place {
	return []place{
		{"gateway/sealed/opener.go", "a whole read has a tail", `o.whole && o.done`, `o.whole && o.done && !mutantOff(OFF)`},
		{"gateway/sealed/envelope.go", "base64: line breaks", `if strings.ContainsAny(text, "\r\n")`, `if !mutantOff(OFF) && strings.ContainsAny(text, "\r\n")`},
		{"gateway/sealed/envelope.go", "base64: stray bits", `base64.RawURLEncoding.Strict()`, `mutantElse(OFF, base64.RawURLEncoding.Strict(), base64.RawURLEncoding)`},
	}
}
