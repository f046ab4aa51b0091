#!/bin/sh
# Builds a tool that the tests use, once, and prints the path of its binary.
#
#	test/tools/build.sh minio|versitygw|versitygw-server|toxiproxy|vault|fake-gcs-server|azurite|lint
#
# Each tool is pinned by a Go module of its own beside this script, so that nothing
# of it enters the product's go.mod. The binary lies in
# ${CHATELAINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/chatelaine}, named by the hash of
# its go.mod, go.sum and Go files: another version is another file. Progress goes to stderr.
# azurite is of npm: a folder beside, named by the hash of its package-lock.json.
# Any number may run at once: a binary appears under its name whole or not at all.
set -eu

usage() {
	echo "usage: $0 minio|versitygw|versitygw-server|toxiproxy|vault|fake-gcs-server|azurite|lint" >&2
	exit 2
}

[ $# -eq 1 ] || usage
tool=$1
case $tool in
minio) package=github.com/minio/minio ;;
versitygw) package=chatelaine/test/tools/versitygw ;; # a program of ours around its suite
versitygw-server) package=github.com/versity/versitygw/cmd/versitygw ;;
toxiproxy) package=github.com/Shopify/toxiproxy/v2/cmd/server ;;
vault) package=chatelaine/test/tools/vault ;;        # the parts of it that a test needs
fake-gcs-server) package=chatelaine/test/tools/fake-gcs-server ;; # it, with a front of ours
azurite) package= ;; # of npm
lint) package=github.com/golangci/golangci-lint/v2/cmd/golangci-lint ;;
*) usage ;;
esac

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${CHATELAINE_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or CHATELAINE_CACHE}/.cache}/chatelaine}

# npm's programs are a folder. It appears whole or not at all, too.
if [ "$tool" = azurite ]; then
	hash=$(cd "$here/$tool" && cat package.json package-lock.json | sha256sum | cut -c1-16)
	folder=$cache/$tool-$hash
	if [ ! -d "$folder" ]; then
		mkdir -p "$cache"
		partial=$(mktemp -d "$cache/.$tool-$hash.XXXXXX")
		trap 'rm -rf "$partial"' EXIT
		trap 'exit 1' HUP INT TERM
		echo "installing $tool into $cache" >&2
		cp "$here/$tool/package.json" "$here/$tool/package-lock.json" "$partial"
		(cd "$partial" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error) >&2
		chmod 755 "$partial"
		mv -T "$partial" "$folder" 2>/dev/null || [ -d "$folder" ]
	fi
	echo "$folder/node_modules/.bin/azurite-blob"
	exit 0
fi

hash=$(cd "$here/$tool" && cat go.mod go.sum $(find . -name '*.go' | LC_ALL=C sort) | sha256sum | cut -c1-16)
binary=$cache/$tool-$hash

if [ -x "$binary" ]; then
	echo "$binary"
	exit 0
fi

mkdir -p "$cache"
partial=$(mktemp "$cache/.$tool-$hash.XXXXXX")
trap 'rm -f "$partial"' EXIT
trap 'exit 1' HUP INT TERM

echo "building $tool into $cache; the first time takes minutes" >&2
start=$(date +%s)
# The tool's pins alone count: no workspace, no flags meant for the product.
GOWORK=off GOFLAGS=-buildvcs=false CGO_ENABLED=0 \
	go build -C "$here/$tool" -trimpath -ldflags '-s -w' -o "$partial" "$package" >&2
chmod 755 "$partial"
mv -f "$partial" "$binary"
echo "built $tool in $(($(date +%s) - start)) s" >&2
echo "$binary"
