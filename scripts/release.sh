#!/bin/sh
# Makes a release of this commit in dist/release: images, the programs with all that belongs to them, bills of materials,
# provenance, sums and a signature.
#
# Usage: scripts/release.sh [--key FILE] [--prebuilt] [--allow-dirty] [--out FOLDER]
#   --key FILE     sign with this minisign secret key (`minisign -G` makes one). Its password, if it has one, comes from
#                  MINISIGN_PASSWORD or from the terminal. The public key that lies beside it as NAME.pub becomes part of
#                  the release
#   --prebuilt     pack what scripts/build-static.sh has built of this commit for both architectures
#   --allow-dirty  also where files differ from the commit, for trials: the programs then say so in --version
#   --out FOLDER   make it there (default: dist/release). A folder that exists must be a release or empty
#
# The result:
#   agent-net-VERSION-oci.tar                  both images with one index, for registries
#   agent-net-VERSION-linux-ARCH-image.tar     one image, for `docker load` and `podman load`
#   agent-net-VERSION-linux-ARCH.tar.gz        programs, completions, manual page, systemd units, Compose files, scripts
#   agent-net-VERSION-linux-ARCH.cdx.json      what the image consists of (CycloneDX)
#   image-digests                              by which registries and Docker name the images
#   provenance.json                            commit, compilers, flags, and what came of them
#   SHA256SUMS, SHA256SUMS.minisig             of all of these
# The same commit gives the same bytes where the compilers, the glibc packages, tar and gzip are the same. Apart from these,
# provenance.json and with it SHA256SUMS depend on whether the advisories could be checked. An interrupted run leaves the
# previous release.
#
# Exit codes: 0 made, 1 failed or a tool is missing, 64 usage
set -eu

# shellcheck source=scripts/build-static/common.sh
. "$(dirname "$0")/build-static/common.sh"

# absolute PATH
absolute() {
    case $1 in
    /*) printf %s "$1" ;;
    *) printf '%s/%s' "$PWD" "$1" ;;
    esac
}

key=
prebuilt=false
allow_dirty=false
final=
while [ "$#" -gt 0 ]; do
    case $1 in
    --key=* | --out=*)
        argument=$1
        shift
        set -- "${argument%%=*}" "${argument#*=}" "$@"
        continue
        ;;
    --key)
        [ -n "${2:-}" ] || wrong "--key needs a value: the file of a minisign secret key"
        key=$2
        shift
        ;;
    --prebuilt) prebuilt=true ;;
    --allow-dirty) allow_dirty=true ;;
    --out)
        [ -n "${2:-}" ] || wrong "--out needs a value: a folder"
        final=$2
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) wrong "unknown argument: $1" ;;
    esac
    shift
done
[ -z "$key" ] || [ -f "$key" ] || wrong "--key $key: not a file"
[ -z "$key" ] || key=$(absolute "$key")
# The folder itself where this is a link to it.
if [ -d "$final" ]; then
    final=$(cd "$final" && pwd -P)
elif [ -n "$final" ]; then
    final=$(absolute "${final%/}")
fi
# The compilers need not know it.
password=${MINISIGN_PASSWORD:-}
unset MINISIGN_PASSWORD
# Nor may the environment choose what is packed and how.
unset TAR_OPTIONS GZIP

cd "$(dirname "$0")/.."
: "${final:=$PWD/dist/release}"
# It is replaced as a whole.
if [ -e "$final" ] && [ ! -f "$final/provenance.json" ] && { [ ! -d "$final" ] || [ -n "$(ls -A "$final")" ]; }; then
    wrong "--out $final: must be a new folder, an empty one or a release"
fi
umask 022
LC_ALL=C
export LC_ALL

need git "the package git"
need gzip "the package gzip"
need sha256sum "the package coreutils"
need flock "the package util-linux"
tar --version 2>/dev/null | grep -q 'GNU tar' || fail "GNU tar is missing: install the package tar"
[ -z "$key" ] || need minisign "the package minisign"

# ---- which commit ----

# Not that of a folder above.
if [ ! -e .git ] || ! commit=$(git_here rev-parse --verify HEAD); then
    fail "a release needs the commit it is made of: run this in a clone"
fi
SOURCE_DATE_EPOCH=$(git_here log -1 --format=%ct)
AGENT_NET_COMMIT=$(printf %.12s "$commit")
dirty=$(list_changes)
if [ -n "$dirty" ]; then
    $allow_dirty || fail "files differ from the commit: commit them first, or try with --allow-dirty:
$dirty"
    commit=$commit-dirty
    AGENT_NET_COMMIT=$AGENT_NET_COMMIT-dirty
fi
export SOURCE_DATE_EPOCH AGENT_NET_COMMIT
version=$(version_here)
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
grep -q "^## \[*$version" CHANGELOG.md || fail "CHANGELOG.md has no section for $version"

# ---- what goes in ----

case $own_arch in
amd64 | arm64) ;;
*) fail "this machine is neither amd64 nor arm64" ;;
esac

# check_built ARCH: what was built for it is of this commit and of this architecture.
check_built() {
    rootfs=$(rootfs_of "$1")
    build=dist/build-$1.json
    if [ ! -d "$rootfs" ] || [ ! -f "$build" ]; then
        fail "$rootfs or $build is missing: run scripts/build-static.sh --arch $1, or leave out --prebuilt"
    fi
    grep -q "^  \"commit\": \"$AGENT_NET_COMMIT\"" "$build" ||
        fail "$rootfs was built of another commit than $AGENT_NET_COMMIT ($build): run scripts/build-static.sh --arch $1"
    for program in agent-net agent-net-nvml; do
        # The field e_machine of an ELF file.
        case $1:$(od -An -t u1 -j 18 -N 1 "$rootfs/$program" | tr -d ' ') in
        amd64:62 | arm64:183) ;;
        *) fail "$rootfs/$program is not a program for $1: run scripts/build-static.sh --arch $1" ;;
        esac
    done
}

if ! $prebuilt; then
    scripts/build-static.sh --arch amd64
    scripts/build-static.sh --arch arm64
fi
check_built amd64
check_built arm64

code=0
scripts/audit.sh --install || code=$?
case $code in
0) advisories=checked ;;
3) advisories="not checked" ;;
1) fail "scripts/audit.sh has findings or failed (see above): fix them, or write down in deny.toml why they do not apply" ;;
*) fail "scripts/audit.sh ended with $code" ;;
esac

# ---- the release ----

# A hidden folder of its own beside it: a run replaces and removes nothing else there.
making=${final%/*}/.${final##*/}.making
new=$making/new
work=$making/work
old=$making/old

# An interrupted run leaves the previous release.
clean_up() {
    [ -e "$final" ] || [ ! -e "$old" ] || mv "$old" "$final"
    rm -rf "$making"
}

# sign FILE: minisign reads a password from the terminal, or as a line of standard input.
sign() {
    set -- minisign -S -s "$key" -m "$1" -x "$1.minisig" \
        -c "signature of agent-net $version" -t "agent-net $version, commit $commit"
    # Its second line begins so where no password protects it: minisign would ask for one all the same.
    if sed -n 2p "$key" | grep -q '^RWQAAEIy'; then
        "$@" -W >/dev/null
    elif [ -n "$password" ]; then
        printf '%s\n' "$password" | "$@" >/dev/null
    else
        "$@" >/dev/null
    fi
}

# Of two runs at the same time only one makes this release.
mkdir -p "$making"
exec 9<"$making"
flock -n 9 || fail "another run is making $final"
rm -rf "$new" "$work"
[ ! -e "$final" ] || rm -rf "$old"
mkdir "$new" "$work"
# Folders made in it must not get the bit, which the archives would contain.
chmod g-s "$work"
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# shellcheck source=scripts/build-static/json.sh
. scripts/build-static/json.sh
# shellcheck source=scripts/release/image.sh
. scripts/release/image.sh
# shellcheck source=scripts/release/archives.sh
. scripts/release/archives.sh
# shellcheck source=scripts/release/provenance.sh
. scripts/release/provenance.sh

make_images
write_digests >"$new/image-digests"
for arch in amd64 arm64; do
    install -m 644 "$(rootfs_of "$arch")/usr/share/sbom/agent-net.cdx.json" "$new/agent-net-$version-linux-$arch.cdx.json"
    make_archive
done
write_provenance >"$new/provenance.json"
# Only the name's extension: a folder's name may have a dot.
name=${key##*/}
public=${key%/*}/${name%.*}.pub
if [ -n "$key" ] && [ -f "$public" ]; then
    install -m 644 "$public" "$new/agent-net.pub"
fi
(cd "$new" && sha256sum -- *) >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" "$new/SHA256SUMS"
if [ -n "$key" ]; then
    sign "$new/SHA256SUMS" || fail "minisign could not sign with $key"
    [ ! -f "$new/agent-net.pub" ] || minisign -Vqm "$new/SHA256SUMS" -p "$new/agent-net.pub" ||
        fail "$public is not the public key of $key"
fi
find "$new" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
[ ! -e "$final" ] || mv "$final" "$old"
mv -T "$new" "$final"

(cd "$final" && wc -c -- *) | sed 's/^/release: /' >&2
[ "$advisories" = checked ] || say "warning: known vulnerabilities of the crates were not checked"
[ -n "$key" ] || say "warning: not signed: --key FILE signs it"
say "agent-net $version of commit $commit is in $final"
