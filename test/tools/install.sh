#!/bin/sh
# Installs the Debian packages named, those that are missing:
#
#	test/tools/install.sh softhsm2 curl
#
# Where all are there it asks nobody for anything: no network, no root. Otherwise it
# needs apt-get, and root or sudo.
set -eu

[ $# -gt 0 ] || { echo "usage: $0 PACKAGE..." >&2; exit 2; }

# present says whether what a package brings is there. dpkg knows best; without
# dpkg, a program that the package is known for counts.
present() {
	# Node.js of other origin brings an npm that Debian's package conflicts with.
	if [ "$1" = npm ] && command -v npm >/dev/null 2>&1; then return; fi
	if command -v dpkg-query >/dev/null 2>&1; then
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
		return
	fi
	case $1 in
	softhsm2) command -v softhsm2-util ;;
	opensc) command -v pkcs11-tool ;;
	openssh-client) command -v ssh-keygen ;;
	awscli) command -v aws ;;
	python3-boto3) python3 -c 'import boto3' ;;
	python3-cryptography) python3 -c 'import cryptography' ;;
	nodejs) command -v node ;;
	*) command -v "$1" ;;
	esac >/dev/null 2>&1
}

missing=
for package in "$@"; do
	present "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "$0: not here, and there is no apt-get to install it with:$missing" >&2
	echo "Please install it (these are Debian's names) and try again." >&2
	exit 1
fi

root=
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "$0: not here:$missing" >&2
		echo "You are not root and there is no sudo. As root: apt-get install$missing" >&2
		exit 1
	fi
	root=sudo
fi

echo "installing$missing" >&2
# Two makes at once wait for each other. Words are meant to be split here.
apt() {
	# shellcheck disable=SC2086
	$root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"
}
apt update >&2
# shellcheck disable=SC2086
apt install -y --no-install-recommends $missing >&2
