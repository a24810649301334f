#!/bin/sh
# Builds the image's file systems twice, in two folders, and compares every file: its bytes, mode and time.
#
# Usage: scripts/reproduce.sh [--arch amd64|arm64]... [--built]
#   --arch ARCH  compare the file system of this architecture (default: this machine's); may be repeated
#   --built      take the first build from dist/ as it is, instead of running scripts/build-static.sh there
#
# The second build is of a copy of the same files, changed or not, in another folder with a space in its name, with
# other modes and times, and with Rust's crates in another folder. It is removed at the end. Two architectures are built
# at the same time. Set TMPDIR to a folder with 1 GB for each.
#
# It prints the SHA-256 of each file in both builds.
#
# Exit codes: 0 equal, 1 a file differs or a build failed, 64 usage
set -eu

# shellcheck source=scripts/build-static/common.sh
. "$(dirname "$0")/build-static/common.sh"

archs=
built=false
while [ "$#" -gt 0 ]; do
    case $1 in
    --arch)
        [ "$#" -gt 1 ] || wrong "--arch needs a value: amd64 or arm64"
        archs="$archs $2"
        shift
        ;;
    --arch=*) archs="$archs ${1#*=}" ;;
    --built) built=true ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) wrong "unknown argument: $1" ;;
    esac
    shift
done
for arch in ${archs:=$own_arch}; do
    case $arch in
    amd64 | arm64) ;;
    *) wrong "--arch $arch: must be amd64 or arm64" ;;
    esac
done

unset TAR_OPTIONS
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
pids=

stop() {
    for pid in $pids; do
        kill -- "-$pid" 2>/dev/null || :
    done
    rm -rf "$work"
}

trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# build_all FOLDER: the file systems of all architectures there
build_all() {
    pids=
    for arch in $archs; do
        # As a group of processes, so that all of them can be ended.
        (cd "$1" && exec setsid scripts/build-static.sh --arch "$arch") >"$work/log-$arch" 2>&1 &
        pids="$pids $!"
    done
    failed=
    # shellcheck disable=SC2086 # a list of words
    set -- $pids
    for arch in $archs; do
        wait "$1" || failed="$failed $arch"
        shift
    done
    pids=
    for arch in $failed; do
        cat "$work/log-$arch" >&2
    done
    [ -z "$failed" ] || fail "the build failed for$failed"
}

# What git knows and what it would add, as it is now. Outside a git work tree everything but what builds leave.
copy_sources() {
    if [ -e .git ]; then
        git_here -c core.quotePath=false ls-files --cached --others --exclude-standard |
            sort -u | while IFS= read -r file; do
            [ ! -e "$file" ] || printf '%s\n' "$file"
        done >"$work/files"
        tar -cf - -T "$work/files"
    else
        tar -cf - --exclude=./target --exclude=./dist --exclude=./.run .
    fi | tar -xmf - --no-same-permissions -C "$1"
}

# value NAME FILE: of a dist/build-ARCH.json
value() {
    sed -n "s/^  \"$1\": \"\\{0,1\\}\\([^\",]*\\)\"\\{0,1\\},\$/\\1/p" "$2"
}

# Sets $twin to a copy that has built the same, in another folder with other modes.
build_twin() {
    umask 077
    twin="$work/a twin/of it"
    mkdir -p "$twin" "$work/other crates"
    copy_sources "$twin"
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    for name in registry git config.toml config; do
        [ ! -e "$cargo_home/$name" ] || ln -s "$cargo_home/$name" "$work/other crates/$name"
    done
    CARGO_HOME="$work/other crates"
    export CARGO_HOME
    unset CARGO_TARGET_DIR
    for arch in $archs; do
        # The mirror's packages of another architecture, where it does not respond.
        glibc=target/static-$arch/glibc-$arch
        [ ! -d "$glibc" ] || {
            mkdir -p "$twin/target/static-$arch"
            cp -R "$glibc" "$twin/$glibc"
        }
        file=dist/build-$arch.json
        AGENT_NET_COMMIT=$(value commit "$file")
        [ "$AGENT_NET_COMMIT" != null ] || AGENT_NET_COMMIT=
        SOURCE_DATE_EPOCH=$(value source_date_epoch "$file")
    done
    export AGENT_NET_COMMIT SOURCE_DATE_EPOCH
    build_all "$twin"
}

# list ROOTFS: lines of PATH KIND MODE TIME SHA-256
list() {
    (cd "$1" && find . | LC_ALL=C sort | while IFS= read -r path; do
        sum=-
        [ ! -f "$path" ] || sum=$(sha256sum <"$path" | cut -d ' ' -f 1)
        printf '%s %s %s\n' "$path" "$(stat -c '%F|%a|%Y' "$path" | tr ' |' '_ ')" "$sum"
    done)
}

# compare ARCH: prints the sums, and adds what differs to $work/differing
compare() {
    rootfs=$(rootfs_of "$1")
    list "$rootfs" >"$work/first"
    list "$twin/$rootfs" >"$work/second"
    for side in first second; do
        folder=$root
        [ "$side" = first ] || folder=$twin
        printf 'build-%s.json regular_file - - %s\n' "$1" "$(sha256sum <"$folder/dist/build-$1.json" | cut -d ' ' -f 1)" >>"$work/$side"
    done
    printf '%s: SHA-256 of the first build, of the second build, file\n' "$1"
    awk 'FNR == NR { first[$1] = $5; next } { print ($1 in first ? first[$1] : "missing"), $5, $1; seen[$1] = 1 }
        END { for (path in first) if (!(path in seen)) print first[path], "missing", path }' \
        "$work/first" "$work/second" | grep -v '^- - ' || :
    diff "$work/first" "$work/second" | sed -n "s/^[<>]/$1:/p" >>"$work/differing" || :
}

$built || build_all "$root"
for arch in $archs; do
    for file in "$(rootfs_of "$arch")" "dist/build-$arch.json"; do
        [ -e "$file" ] || fail "$file is missing: run scripts/build-static.sh --arch $arch"
    done
done
build_twin
: >"$work/differing"
for arch in $archs; do
    compare "$arch"
done
if [ -s "$work/differing" ]; then
    say "these differ (file, kind, mode, time, SHA-256):"
    cat "$work/differing" >&2
    exit 1
fi
say "both builds are equal:$archs"
