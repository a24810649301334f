#!/bin/sh
# Builds both binaries and assembles dist/rootfs/, the image's file system. dist/build-ARCH.json says what of, and how.
#
# Usage: scripts/build-static.sh [--arch amd64|arm64] [--server-only] [--fake-nvml]
#   --arch ARCH    build for this architecture (default: this machine's). For another one the file system is
#                  dist/rootfs-ARCH
#   --server-only  build only the static server, as dist/agent-net (for another architecture dist/agent-net-ARCH), and
#                  no file system
#   --fake-nvml    with another architecture: also build the tests' simulated NVML libraries, as
#                  dist/fake-nvml-ARCH/nvml/libnvidia-ml.so.1 and that of an older driver in nvml-old
#
# The server is linked statically against musl, in the first of these ways that the machine offers. The script reports
# on stderr which one it took:
#   1. the machine's own compiler, if it is a musl one (Alpine; only with --server-only, since the helper needs glibc)
#   2. the musl target of rustup (`rustup target add x86_64-unknown-linux-musl`), with musl-gcc, and with rustup's own
#      linker where it has one
#   3. Debian's rustc-web, cargo-web and rust-web-src, which build the standard library from source
# The helper is a glibc program. The glibc files it needs are copied from this machine.
#
# For another architecture it needs that architecture's C compiler for glibc (gcc-aarch64-linux-gnu), and takes the first
# of these ways for each program:
#   1. the targets of rustup (`rustup target add aarch64-unknown-linux-musl aarch64-unknown-linux-gnu`), with the linker
#      that Rust brings for the server
#   2. Debian's rustc-web, cargo-web and rust-web-src, with Zig as C compiler and linker for musl. Without a command zig
#      it installs a fixed version from PyPI into the target folder
# The glibc files come from this machine's Debian or Ubuntu mirror, so that they are as new as those of an own build.
# Without a mirror they are those of the C compiler, which may lack security updates.
#
# The same commit gives the same bytes with the same tools (scripts/reproduce.sh compares). All times are those of the
# commit. Outside a git work tree they are SOURCE_DATE_EPOCH (seconds, default 0), and the programs name the commit in
# AGENT_NET_COMMIT, if any.
#
# Exit codes: 0 built and checked, 1 failed or a tool is missing, 64 usage
set -eu
# Nothing below depends on who builds: neither an order nor a mode, nor flags of other builds.
LC_ALL=C
CARGO_INCREMENTAL=0
CC_SHELL_ESCAPED_FLAGS=1
export LC_ALL CARGO_INCREMENTAL CC_SHELL_ESCAPED_FLAGS
unset CFLAGS TARGET_CFLAGS
umask 022

# shellcheck source=scripts/build-static/common.sh
. "$(dirname "$0")/build-static/common.sh"

arch=$own_arch
server_only=false
fake_nvml=false
while [ "$#" -gt 0 ]; do
    case $1 in
    --arch)
        [ "$#" -gt 1 ] || wrong "--arch needs a value: amd64 or arm64"
        arch=$2
        shift
        ;;
    --arch=*) arch=${1#*=} ;;
    --server-only) server_only=true ;;
    --fake-nvml) fake_nvml=true ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) wrong "unknown argument: $1" ;;
    esac
    shift
done
case $arch in
amd64) cpu=x86_64 ;;
arm64) cpu=aarch64 ;;
*) wrong "--arch $arch: must be amd64 or arm64" ;;
esac
cross=false
suffix=
if [ "$arch" != "$own_arch" ]; then
    cross=true
    suffix=-$arch
elif $fake_nvml; then
    wrong "--fake-nvml is for another architecture: the tests build this machine's libraries themselves"
fi

cd "$(dirname "$0")/.."
# As cargo names it: without symbolic links.
root=$(pwd -P)
# Its own folder, so that other builds neither wait for this one nor lose their cache to it.
built=${CARGO_TARGET_DIR:-target}/static$suffix
case $built in
/*) ;;
*) built=$root/$built ;;
esac

musl=$cpu-unknown-linux-musl
gnu=$cpu-unknown-linux-gnu
triplet=$cpu-linux-gnu

need cargo "Rust, for example with rustup"
need rustc "Rust, for example with rustup"
need readelf "the package binutils"

host=$(rustc -vV | sed -n 's/^host: //p')
version=$(version_here)

# Sets AGENT_NET_COMMIT, which the programs name, and SOURCE_DATE_EPOCH, the time of all files.
name_commit() {
    if [ -e .git ] && head=$(git_here rev-parse --verify HEAD); then
        AGENT_NET_COMMIT=$(printf %.12s "$head")
        [ -z "$(list_changes)" ] || AGENT_NET_COMMIT=$AGENT_NET_COMMIT-dirty
        : "${SOURCE_DATE_EPOCH:=$(git_here log -1 --format=%ct)}"
    fi
    case ${AGENT_NET_COMMIT:=} in
    *[!0-9a-z-]*) wrong "AGENT_NET_COMMIT=\"$AGENT_NET_COMMIT\": must be digits of a commit" ;;
    esac
    case ${SOURCE_DATE_EPOCH:=0} in
    *[!0-9]*) wrong "SOURCE_DATE_EPOCH=\"$SOURCE_DATE_EPOCH\": must be seconds since 1970" ;;
    esac
    export AGENT_NET_COMMIT SOURCE_DATE_EPOCH
}

# shellcheck source=scripts/build-static/programs.sh
. scripts/build-static/programs.sh
# shellcheck source=scripts/build-static/json.sh
. scripts/build-static/json.sh
# shellcheck source=scripts/build-static/documents.sh
. scripts/build-static/documents.sh

# ---- the file system ----

# Unpacks the newest glibc packages of the architecture into $glibc/root. apt uses the machine's sources, with lists and
# a cache of its own. If the mirror cannot be reached, it keeps those of the last build.
fetch_glibc() {
    glibc=$built/glibc-$arch
    if command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1; then
        new=$glibc.new
        rm -rf "$new"
        mkdir -p "$new/lists/partial" "$new/cache/archives/partial" "$new/root"
        # The machine's hooks would run after the update. The user _apt cannot read the target folder.
        cat >"$new/apt.conf" <<CONF
APT::Architecture "$arch";
#clear APT::Architectures;
APT::Architectures { "$arch"; };
APT::Sandbox::User "root";
#clear APT::Update;
Dir::State::Lists "$new/lists";
Dir::State::Status "/dev/null";
Dir::Cache "$new/cache";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
CONF
        if (cd "$new" && apt-get -c apt.conf -qq update 2>/dev/null &&
            apt-get -c apt.conf -qq download libc6 libgcc-s1 libc-bin >/dev/null 2>&1); then
            for package in "$new"/*.deb; do
                dpkg-deb -x "$package" "$new/root"
                # Lines of PATH PACKAGE VERSION.
                dpkg-deb -c "$package" | sed -n 's,^-.* \./,/,p' |
                    sed "s,\$, $(dpkg-deb -f "$package" Package) $(dpkg-deb -f "$package" Version),"
            done >"$new/files"
            rm -rf "$glibc" "$new/lists" "$new/cache" "$new"/*.deb
            mv "$new" "$glibc"
            return
        fi
        rm -rf "$new"
    fi
    [ ! -f "$glibc/files" ] || say "warning: no mirror has libc6 for $arch: using the files of the last build"
}

# find_library NAME: the path of a glibc file
find_library() {
    if $cross; then
        found=$(find "$glibc/root" -type f -name "$1" 2>/dev/null | head -n 1)
        [ -n "$found" ] || found=$("$gcc" -print-file-name="$1")
    else
        found=$(cc -print-file-name="$1")
    fi
    # cc prints the bare name if it does not find the file.
    [ -f "$found" ] || fail "$1 is missing: install the packages libc6 and libgcc-s1"
    printf %s "$found"
}

# package_of NAME: the package of a glibc file and its version, or nothing
package_of() {
    if ! $cross; then
        owner=$(dpkg-query -S "*/$1" 2>/dev/null | sed -n "s/^\([^:,]*\).*$triplet.*/\1/p" | head -n 1)
        [ -z "$owner" ] || dpkg-query -W -f '${Package} ${Version}' "$owner:$(dpkg --print-architecture)" 2>/dev/null
    elif [ -f "$glibc/files" ]; then
        sed -n "s,^[^ ]*/$1 ,,p" "$glibc/files" | head -n 1
    else
        owner=$(dpkg-query -S "$("$gcc" -print-file-name="$1")" 2>/dev/null | sed -n 's/^\([^:]*\):.*/\1/p' | head -n 1)
        [ -z "$owner" ] || dpkg-query -W -f '${Package} ${Version}' "$owner" 2>/dev/null
    fi
}

# The C library of the helper, and what libnvidia-ml.so.1 needs in addition: since glibc 2.34 dl, pthread and rt are
# empty, but the driver's library still names them and does not load without them.
copy_glibc() {
    rootfs=$1
    interpreter=$(readelf -lW "$rootfs/agent-net-nvml" | sed -n 's/.*program interpreter: \(.*\)]/\1/p')
    [ -n "$interpreter" ] || fail "the helper has no interpreter: it must be a glibc program"
    if $cross; then
        install -D -m 755 "$(find_library "${interpreter##*/}")" "$rootfs$interpreter"
    else
        install -D -m 755 "$interpreter" "$rootfs$interpreter"
    fi
    mkdir -p "$rootfs/lib/$triplet"
    for name in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libgcc_s.so.1; do
        from=$(find_library "$name")
        install -m 755 "$from" "$rootfs/lib/$triplet/$name"
    done
    readelf -dW "$rootfs/agent-net-nvml" | sed -n 's/.*(NEEDED).*\[\(.*\)]/\1/p' | while read -r name; do
        [ -f "$rootfs/lib/$triplet/$name" ] || [ "$name" = "${interpreter##*/}" ] ||
            fail "the helper needs $name, which is not in the image"
    done
}

# write_cache ROOTFS: creates its ld.so.cache. Where that fails, $no_cache says why. A foreign ldconfig runs by emulation:
# each knows only the libraries of its own architecture.
write_cache() {
    if $cross; then
        no_cache="that needs Debian's mirror and the package qemu-user-static"
        ldconfig=$(find "$glibc/root" -type f -name ldconfig 2>/dev/null | head -n 1)
        emulator=$(command -v "qemu-$cpu-static" || command -v "qemu-$cpu") || return 1
        [ -n "$ldconfig" ] || return 1
        set -- "$emulator" "$ldconfig" -X -r "$1"
    else
        no_cache="only root can create one here"
        PATH=$PATH:/usr/sbin:/sbin
        need ldconfig "the package libc-bin"
        set -- ldconfig -X -r "$1"
    fi
    # -r changes the root directory, which needs root or a user namespace.
    "$@" 2>/dev/null || unshare --user --map-root-user "$@" 2>/dev/null
}

# Files that NVIDIA's container tools look for. debian_version says which directory this loader searches. With
# ld.so.conf and a real ld.so.cache every version of their hook updates the cache.
write_etc() {
    rootfs=$1
    mkdir -p "$rootfs/etc/ld.so.conf.d"
    if [ -f /etc/debian_version ]; then
        install -m 644 /etc/debian_version "$rootfs/etc/debian_version"
    else
        echo 12 >"$rootfs/etc/debian_version"
    fi
    printf '%s\n' 'include /etc/ld.so.conf.d/*.conf' "/lib/$triplet" "/usr/lib/$triplet" >"$rootfs/etc/ld.so.conf"
    printf '%s\n' 'root:x:0:0:root:/:/nonexistent' 'agent-net:x:65532:65532:agent-net:/:/nonexistent' >"$rootfs/etc/passwd"
    printf '%s\n' 'root:x:0:' 'agent-net:x:65532:' >"$rootfs/etc/group"
    chmod 644 "$rootfs"/etc/ld.so.conf "$rootfs"/etc/passwd "$rootfs"/etc/group
    if write_cache "$rootfs"; then
        chmod 644 "$rootfs/etc/ld.so.cache"
    else
        say "warning: no ld.so.cache, since $no_cache; NVIDIA container tools before 1.15 need it"
    fi
    # Only ldconfig uses its own cache.
    rm -rf "${rootfs:?}/var"
}

# fix_folders_and_times ROOTFS: a folder may have got bits of the one that it was made in.
fix_folders_and_times() {
    find "$1" -type d -exec chmod u=rwx,go=rx,a-s,a-t {} +
    # A volume mounted on an empty folder takes over its mode, so that any user the worker runs as can write there.
    chmod 1777 "$1/tmp" "$1/state"
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

name_commit
build_server
server=$built/$musl/release/agent-net
check_server "$server"
check_pages "$server"
mkdir -p dist
if $server_only; then
    install -m 755 "$server" "dist/agent-net$suffix"
    say "dist/agent-net$suffix: $(wc -c <"$server") bytes"
    exit 0
fi
method_server=$method
rustflags_server=$shown
compiler_server=$("$compiler" --version | head -n 1)
rustc_server=$("$rustc" --version)
cargo_server=$(if $from_debian; then /usr/bin/cargo --version; else cargo --version; fi)

build_helper
helper=$built/$gnu/release/agent-net-nvml
method_helper=$method
rustflags_helper=$shown
compiler_helper=$("$compiler" --version | head -n 1)
rustc_helper=$("$rustc" --version)

! $cross || fetch_glibc
# Assembled next to the old one, then moved into its place: an interrupted run leaves the old one.
final=dist/rootfs$suffix
new=$root/$final.new
rm -rf "$new"
mkdir -p "$new/usr/lib/$triplet" "$new/usr/lib64" "$new/run" "$new/proc" "$new/dev" "$new/sys" "$new/tmp" "$new/state"
install -m 755 "$server" "$new/agent-net"
install -m 755 "$helper" "$new/agent-net-nvml"
copy_glibc "$new"
find "$new/agent-net-nvml" "$new/lib" -type f | while read -r file; do
    check_pages "$file"
done
write_etc "$new"
write_sbom "$new"
fix_folders_and_times "$new"
write_build "$new" "dist/build-$arch.json"
rm -rf "$final"
mv "$new" "$final"
if $fake_nvml; then
    build_fake_nvml nvml
    build_fake_nvml nvml-old --cfg old
fi

libc=$(package_of libc.so.6)
say "glibc ${libc#* } from $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
say "$final: server $(wc -c <"$final/agent-net") bytes, helper $(wc -c <"$final/agent-net-nvml") bytes, file system $(du -sb "$final" | cut -f1) bytes"
