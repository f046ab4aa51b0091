package arch

import (
	"slices"
	"strings"
)

// Folder is a row of the table: what the files of one folder may import beyond the
// standard library. An entry is a folder of ours, without "chatelaine/", or a module
// of others with all its packages. "C" and "unsafe" need an entry too. An entry of
// ours that ends in "/..." means all below as well; a Dir that does holds for every
// folder below it that has no row of its own.
type Folder struct {
	Dir   string
	Allow []string
	Tests []string // for _test.go files, beside Allow
}

func (f Folder) allows(target string, test bool) bool {
	if standard(target) {
		return true
	}
	inner, ours := strings.CutPrefix(target, module+"/")
	matches := func(entry string) bool {
		if tree, all := strings.CutSuffix(entry, "/..."); all || !ours {
			return within(inner, tree)
		}
		return inner == entry
	}
	// A test may stand outside the package that it tests.
	return slices.ContainsFunc(f.Allow, matches) ||
		test && (slices.ContainsFunc(f.Tests, matches) || matches(f.Dir))
}

// standard says whether an import path is of the standard library and harmless.
func standard(target string) bool {
	first, _, _ := strings.Cut(target, "/")
	return first != module && !strings.Contains(first, ".") && target != "C" && target != "unsafe"
}

// Reach is a way that must not exist, however long.
type Reach struct{ From, To string }

// Modules of others, by short names.
const (
	age        = "filippo.io/age"
	aws        = "github.com/aws"
	azure      = "github.com/Azure/azure-sdk-for-go/sdk"
	cedar      = "github.com/cedar-policy/cedar-go"
	cobra      = "github.com/spf13/cobra"
	connect    = "connectrpc.com/connect"
	crc64nvme  = "github.com/minio/crc64nvme"
	etcd       = "go.etcd.io/etcd"
	gax        = "github.com/googleapis/gax-go/v2"
	gcloud     = "cloud.google.com/go"
	gapi       = "google.golang.org/api"
	lru        = "github.com/hashicorp/golang-lru/v2"
	miekg      = "github.com/miekg/pkcs11"
	prometheus = "github.com/prometheus/client_golang/prometheus"
	protobuf   = "google.golang.org/protobuf"
	vaultapi   = "github.com/hashicorp/vault/api"
	uuid       = "github.com/google/uuid"
	xcrypto    = "golang.org/x/crypto"
	xsync      = "golang.org/x/sync"
	xsys       = "golang.org/x/sys"
	xxh3       = "github.com/zeebo/xxh3"
	xxhash     = "github.com/cespare/xxhash/v2"
	yaml       = "github.com/goccy/go-yaml"
	zap        = "go.uber.org/zap"
)

// Table is the product's. It follows the layers: cmd at the top, then gateway and
// kms side by side, then backends and hsm. Nothing points upwards, no driver knows
// another, and an SDK is named in its driver's row alone.
func Table() []Folder {
	return slices.Concat(cmdRows(), gatewayRows(), kmsRows(), hsmRows(), backendsRows(), testRows())
}

func cmdRows() []Folder {
	return []Folder{
		{
			Dir:   "cmd/chatelaine",
			Allow: []string{"gateway/...", "kms/...", "backends/...", "hsm", "hsm/doctor", cobra, connect, prometheus, protobuf, xsync, xsys, zap},
			Tests: []string{"hsm/hsmtest", aws},
		},
	}
}

func gatewayRows() []Folder {
	return []Folder{
		{
			Dir: "gateway",
			Allow: []string{
				"gateway/access", "gateway/keys", "gateway/objects", "gateway/s3api", "gateway/sealed", "gateway/sigv4",
				"backends", prometheus, zap,
			},
			Tests: []string{"backends/...", "gateway/keys/keystest", aws},
		},
		{
			Dir: "gateway/s3api",
			Allow: []string{
				"gateway/access", "gateway/keys", "gateway/objects", "gateway/sealed", "gateway/sigv4",
				"backends", crc64nvme, prometheus, uuid, zap,
			},
			Tests: []string{"backends/...", "gateway/keys/keystest", "kms/policy", aws},
		},
		{Dir: "gateway/sigv4", Allow: []string{crc64nvme}, Tests: []string{aws}},
		{
			Dir:   "gateway/objects",
			Allow: []string{"gateway/keys", "gateway/sealed", "backends", crc64nvme, lru, prometheus, xsync, xxh3, xxhash, zap},
			Tests: []string{"backends/...", "gateway/keys/keystest"},
		},
		{Dir: "gateway/moving", Allow: []string{"gateway/objects", "gateway/sealed", "backends", crc64nvme, xsync}, Tests: []string{"backends/...", "gateway/keys/...", "test/servers", zap}},
		{Dir: "gateway/sealed", Allow: []string{crc64nvme}},
		{
			Dir:   "gateway/keys",
			Allow: []string{"gateway/sealed", "kms", "kms/service/...", connect, lru, prometheus, protobuf, uuid, xsync, zap},
			Tests: []string{"kms/...", "hsm/..."},
		},
		{Dir: "gateway/keys/keystest", Allow: []string{"gateway/keys", "gateway/sealed", "kms"}},
		{
			Dir:   "gateway/breakglass",
			Allow: []string{"gateway/objects", "gateway/sealed", "kms", "kms/offline", "backends", uuid},
			Tests: []string{"backends/memstore", "kms/softkey", zap},
		},
		{Dir: "gateway/access", Allow: []string{"gateway/keys", "kms/policy", prometheus, zap}, Tests: []string{"kms"}},
		{Dir: "gateway/config", Allow: []string{"kms/config/settings"}},
		{Dir: "gateway/server", Allow: []string{prometheus, zap}},
	}
}

func kmsRows() []Folder {
	return []Folder{
		{Dir: "kms", Allow: []string{"kms/offline", uuid, xsync, zap}, Tests: []string{"kms/..."}},
		{Dir: "kms/approval", Allow: []string{"kms", "kms/config/settings", xcrypto, zap}, Tests: []string{"kms/..."}},
		{Dir: "kms/backup", Allow: []string{"kms", age}},
		{Dir: "kms/config", Allow: []string{"kms/config/settings", "kms/offline"}},
		{Dir: "kms/config/settings", Allow: []string{yaml}},
		{Dir: "kms/keyceremony", Allow: []string{"kms", "kms/approval", "kms/pkcs11", "hsm"}, Tests: []string{"kms/registry", "hsm/hsmtest", xcrypto}},
		{Dir: "kms/kmstest", Allow: []string{"kms"}, Tests: []string{"kms/softkey", zap}},
		{Dir: "kms/pkcs11", Allow: []string{"kms", "hsm", zap}, Tests: []string{"hsm/hsmtest", "kms/kmstest", "kms/registry", miekg}},
		{Dir: "kms/softkey", Allow: []string{"kms", zap}, Tests: []string{"kms/kmstest"}},
		{Dir: "kms/transit", Allow: []string{"kms", vaultapi, zap}, Tests: []string{"kms/...", "hsm/hsmtest", "test/servers"}},
		{Dir: "kms/offline"},
		{Dir: "kms/policy", Allow: []string{"kms", cedar}},
		{Dir: "kms/registry", Allow: []string{"kms", etcd, prometheus, zap}},
		{
			Dir:   "kms/service",
			Allow: []string{"kms", "kms/approval", "kms/policy", "kms/service/...", connect, prometheus, protobuf, uuid, zap},
			Tests: []string{"kms/...", "hsm/hsmtest"},
		},
		// protoc's files take a string's bytes without copying them.
		{Dir: "kms/service/...", Allow: []string{"kms/service/...", "unsafe", connect, protobuf}},
	}
}

func hsmRows() []Folder {
	return []Folder{
		{Dir: "hsm", Allow: []string{"C", "unsafe", miekg, xsys, zap}, Tests: []string{"hsm/hsmtest"}},
		{Dir: "hsm/doctor", Allow: []string{"hsm"}, Tests: []string{"hsm/hsmtest"}},
		{Dir: "hsm/hsmtest", Allow: []string{"hsm"}},
	}
}

func backendsRows() []Folder {
	return []Folder{
		{Dir: "backends"},
		{Dir: "backends/backendtest", Allow: []string{"backends"}, Tests: []string{"backends/memstore"}},
		{Dir: "backends/probe", Allow: []string{"backends"}, Tests: []string{"backends/backendtest", "backends/filestore", "backends/memstore"}},
		{Dir: "backends/memstore", Allow: []string{"backends"}, Tests: []string{"backends/backendtest"}},
		{Dir: "backends/filestore", Allow: []string{"backends", xsys, zap}, Tests: []string{"backends/backendtest"}},
		{
			Dir:   "backends/s3store",
			Allow: []string{"backends", "backends/cloud", aws, crc64nvme, zap},
			Tests: []string{"backends/backendtest", "test/servers"},
		},
		{Dir: "backends/cloud", Allow: []string{"backends"}},
		{
			Dir:   "backends/azurestore",
			Allow: []string{"backends", "backends/cloud", azure, crc64nvme, xsync},
			Tests: []string{"backends/backendtest", "test/servers"},
		},
		{Dir: "backends/gcsstore", Allow: []string{"backends", "backends/cloud", gapi, gax, gcloud, xsync}, Tests: []string{"backends/backendtest", "test/servers"}},
	}
}

func testRows() []Folder {
	return []Folder{
		{Dir: "test/arch"},
		{Dir: "test/servers", Allow: []string{"test/...", etcd, uuid, zap}},
		{
			Dir:   "test/...",
			Allow: []string{"gateway/...", "kms/...", "backends/...", "hsm/...", "test/...", aws, connect, crc64nvme, prometheus, protobuf, uuid, xsync, xsys, zap},
		},
	}
}

// unreachable lists what must not be reached, through whatever other folder.
func unreachable() []Reach {
	return []Reach{
		{"gateway", "hsm"},
		{"gateway", "kms/pkcs11"},
		{"gateway", "kms/softkey"},
		{"gateway", "kms/transit"},
		{"gateway", "kms/registry"},
		{"gateway", "backends/s3store"},
		{"gateway", "backends/filestore"},
		{"gateway", "backends/azurestore"},
		{"gateway", "backends/gcsstore"},
		{"kms", "gateway"},
		{"kms", "backends"},
		{"hsm", "kms"},
		{"backends", "gateway"},
		{"backends", "kms"},
	}
}

// topLevel lists all that may lie beside go.mod: what ARCHITECTURE fixed, and what
// tools insist on.
func topLevel() []string {
	return []string{
		"cmd", "gateway", "kms", "backends", "hsm", "test", "deploy",
		"go.mod", "go.sum", "README.md", "SECURITY.md", "LICENSE", "Makefile", ".ci", ".gitignore", ".golangci.yml",
	}
}

// bannedText lists what no file may say: hosts of package registries, and folders
// of the machine that somebody worked on. They are put together here so that this
// file may be searched too.
func bannedText() []string {
	return []string{
		"proxy.golang" + ".org", "sum.golang" + ".org", "registry.npmjs" + ".org", "deb.debian" + ".org", "pypi" + ".org",
		"/work" + "/main", "/work" + "/shared", "/root" + "/",
	}
}
