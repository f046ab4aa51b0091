//go:build !cgo

package hsm

import "errors"

// load refuses: a binary built with CGO_ENABLED=0 serves as a gateway, not as a KMS on an HSM.
func load(_, _ string) (cryptoki, error) {
	return nil, errors.New("this binary was built without cgo and cannot load PKCS#11 modules")
}
