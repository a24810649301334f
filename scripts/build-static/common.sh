# Sourced by build-static.sh, reproduce.sh and release.sh: what they say, and what they build of and where.
# shellcheck shell=sh

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

say() {
    printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

wrong() {
    say "$* (see --help)"
    exit 64
}

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: install $2"
}

# The environment may choose neither another repository nor another folder.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE CDPATH

# This machine's architecture.
case $(uname -m) in
x86_64) own_arch=amd64 ;;
aarch64) own_arch=arm64 ;;
*) own_arch=$(uname -m) ;;
esac

# rootfs_of ARCH: the root file system that is built for it
rootfs_of() {
    if [ "$1" = "$own_arch" ]; then
        printf dist/rootfs
    else
        printf 'dist/rootfs-%s' "$1"
    fi
}

# git in the current folder. One of another user is as good as one's own.
git_here() {
    git --no-optional-locks -c "safe.directory=$(pwd -P)" -c log.showSignature=false "$@"
}

# What differs from the commit, a line for each file.
list_changes() {
    git_here status --porcelain --untracked-files=no
    # A file that was not added is compiled all the same.
    git_here ls-files --others --exclude-standard -- src stubs build.rs .cargo
}

# The version in Cargo.toml
version_here() {
    sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1
}
