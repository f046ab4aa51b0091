// Package kmsv1 is the generated form of the .proto files here, the RPC of the key plane. It
// knows no rule: what the calls do is package service's.
package kmsv1

import "fmt"

// The messages that carry secrets print their names alone, whatever the verb. The
// generated String still shows all, so a message must never be logged as a value.

// Format hides the bucket key.
func (x *BucketKeyResponse) Format(f fmt.State, _ rune) { hide(f, "BucketKeyResponse") }

// Format hides the signing key.
func (x *SigningKeyResponse) Format(f fmt.State, _ rune) { hide(f, "SigningKeyResponse") }

// Format hides the secret.
func (x *EnsureAccessKeyRequest) Format(f fmt.State, _ rune) { hide(f, "EnsureAccessKeyRequest") }

// Format hides the secret.
func (x *CreateAccessKeyResponse) Format(f fmt.State, _ rune) { hide(f, "CreateAccessKeyResponse") }

// Format hides the secret.
func (x *RevealAccessKeyResponse) Format(f fmt.State, _ rune) { hide(f, "RevealAccessKeyResponse") }

// Format shows nothing of the message: it may hold a bucket key.
func (x *RecoverRequest) Format(f fmt.State, _ rune) { hide(f, "RecoverRequest") }

// Format shows nothing of the message: it may hold a bucket key.
func (x *RecoverMirror) Format(f fmt.State, _ rune) { hide(f, "RecoverMirror") }

func hide(f fmt.State, name string) { _, _ = f.Write([]byte("kmsv1." + name + "(hidden)")) }
