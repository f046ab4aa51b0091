// Package hsm speaks PKCS#11 to one token: it loads the vendor's module, keeps a
// logged-in session and a bounded pool beside it, finds and makes keys, encrypts,
// decrypts and draws random bytes, and mends itself when the device was away.
//
// It is the only package with cgo. It refuses to know what the bytes are that it
// encrypts, what a key version is, and everything else of package kms.
//
// What it assumes of tokens, and why, is in DECISIONS.md.
package hsm
