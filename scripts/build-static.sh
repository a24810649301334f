#!/bin/sh
# Builds both binaries and assembles dist/rootfs/, the image's file system.
#
# Usage: scripts/build-static.sh [--server-only]
#   --server-only  build only the static server, as dist/agent-net, and no file system
#
# The server is linked statically against musl, in the first of these ways that the machine offers. The script reports
# on stderr which one it took:
#   1. the machine's own compiler, if it is a musl one (Alpine; only with --server-only, since the helper needs glibc)
#   2. the musl target of rustup (`rustup target add x86_64-unknown-linux-musl`), with musl-gcc, and with rustup's own
#      linker where it has one
#   3. Debian's rustc-web, cargo-web and rust-web-src, which build the standard library from source
# The helper is a glibc program. The glibc files it needs are copied from this machine.
#
# Exit codes: 0 built and checked, 1 failed or a tool is missing, 64 usage
set -eu

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

say() {
    printf 'build-static: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: install $2"
}

server_only=false
for arg in "$@"; do
    case $arg in
    --server-only) server_only=true ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        say "unknown argument: $arg (see --help)"
        exit 64
        ;;
    esac
done

cd "$(dirname "$0")/.."
root=$PWD
# Its own folder, so that other builds neither wait for this one nor lose their cache to it.
built=${CARGO_TARGET_DIR:-target}/static
case $built in
/*) ;;
*) built=$root/$built ;;
esac

arch=$(uname -m)
case $arch in
x86_64 | aarch64) ;;
*) fail "$arch is not supported: use x86_64 or aarch64" ;;
esac
musl=$arch-unknown-linux-musl
triplet=$arch-linux-gnu

need cargo "Rust, for example with rustup"
need rustc "Rust, for example with rustup"
need readelf "the package binutils"

host=$(rustc -vV | sed -n 's/^host: //p')
# Without relocation-model=static the binary needs an interpreter, which an empty image lacks.
static="-C target-feature=+crt-static -C relocation-model=static"
# With a register that points to each frame, the tables by which a panic finds its way are a third smaller: 130 KB.
static="$static -C force-frame-pointers=yes"
# A table of jumps takes 8 bytes for each value: where they are few, comparisons are smaller.
static="$static -C llvm-args=-min-jump-table-entries=12"

has_target() {
    libdir=$(rustc --print target-libdir --target "$musl" 2>/dev/null) || return 1
    for std in "$libdir"/libstd-*.rlib; do
        [ -f "$std" ] && return 0
    done
    return 1
}

# Sets CC_x86_64_unknown_linux_musl and CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER.
use_musl_gcc() {
    need musl-gcc "the package musl-tools"
    name=$(printf %s "$musl" | tr - _)
    upper=$(printf %s "$name" | tr '[:lower:]' '[:upper:]')
    linker="musl-gcc"
    export "CC_$name=musl-gcc" "CARGO_TARGET_${upper}_LINKER=$linker"
}

# A panic names the file that it is in. Without the folder of all crates before their names the server is smaller, and
# every machine builds the same one.
shorten_paths() {
    cargo fetch --locked --target "$musl"
    for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        case $crates in
        # RUSTFLAGS is split at spaces.
        *' '*) ;;
        *) static="$static --remap-path-prefix=$crates=" ;;
        esac
    done
}

# LLVM's linker has one copy of functions that are equal. musl-gcc links without it, 40 KB larger.
use_lld() {
    [ -x "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld" ] || return 0
    linker="rust-lld"
    export "CARGO_TARGET_${upper}_LINKER=$linker"
    static="$static -C link-arg=--icf=all -C link-arg=-O2"
}

# std built from source needs -lunwind. LLVM's libunwind finds the frames of a musl program, so that a panic can be
# caught. libgcc_eh does not. LLVM's was compiled for glibc with fortified stdio, which musl lacks.
make_unwind_shim() {
    shim=$built/shim
    unwind=
    for found in /usr/lib/llvm-*/lib/libunwind.a; do
        [ -f "$found" ] && unwind=$found
    done
    [ -n "$unwind" ] || fail "LLVM's libunwind.a is missing: install the package libunwind-14-dev"
    need ar "the package binutils"
    mkdir -p "$shim"
    cat >"$shim/chk.c" <<'C'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
    va_list args;
    (void)flag;
    va_start(args, format);
    int written = vfprintf(file, format, args);
    va_end(args);
    return written;
}
C
    musl-gcc -O2 -c "$shim/chk.c" -o "$shim/chk.o"
    rm -f "$shim/libchk.a"
    ar rcs "$shim/libchk.a" "$shim/chk.o"
    printf 'INPUT(%s %s)\n' "$unwind" "$shim/libchk.a" >"$shim/libunwind.a"
}

build_server() {
    shorten_paths
    set -- build --locked --release --no-default-features --bin agent-net --target-dir "$built"
    case $host in
    *-linux-musl)
        $server_only || fail "the helper needs glibc, which this machine lacks: build on Debian, or only the server with --server-only"
        musl=$host
        say "server: this machine's own musl compiler ($(rustc --version))"
        RUSTFLAGS=$static cargo "$@" --target "$musl"
        return
        ;;
    esac
    use_musl_gcc
    if has_target; then
        use_lld
        say "server: rustup's target $musl with musl-gcc and the linker $linker ($(rustc --version))"
        RUSTFLAGS=$static cargo "$@" --target "$musl"
    elif [ -f /usr/lib/rustlib/src/rust/library/Cargo.lock ] && [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ]; then
        say "server: standard library from Debian's rust-web-src ($(/usr/bin/rustc --version))"
        make_unwind_shim
        # build-std needs a nightly compiler. RUSTC_BOOTSTRAP enables it on a stable one.
        RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
            RUSTFLAGS="-C link-self-contained=no -L native=$shim $static" \
            /usr/bin/cargo "$@" --target "$musl" -Z build-std=std,panic_unwind
    else
        fail "no standard library for $musl: run \`rustup target add $musl\`, or on Debian 12 install rustc-web, cargo-web, rust-web-src and libunwind-14-dev"
    fi
}

check_server() {
    headers=$(readelf -hlW "$1")
    case $headers in
    *'(Executable file)'*) ;;
    *) fail "$1 is not a position-dependent executable; it would not start in an empty image" ;;
    esac
    case $headers in
    *INTERP* | *DYNAMIC*) fail "$1 is linked dynamically; it would not start in an empty image" ;;
    esac
}

build_helper() {
    need cc "the package build-essential"
    say "helper: $host ($(rustc --version))"
    cargo build --locked --release --features nvml --bin agent-net-nvml --target-dir "$built"
}

# The C library of the helper, and what libnvidia-ml.so.1 needs in addition: since glibc 2.34 dl, pthread and rt are
# empty, but the driver's library still names them and does not load without them.
copy_glibc() {
    rootfs=$1
    interpreter=$(readelf -lW "$rootfs/agent-net-nvml" | sed -n 's/.*program interpreter: \(.*\)]/\1/p')
    [ -n "$interpreter" ] || fail "the helper has no interpreter: it must be a glibc program"
    install -D -m 755 "$interpreter" "$rootfs$interpreter"
    mkdir -p "$rootfs/lib/$triplet"
    for name in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libgcc_s.so.1; do
        from=$(cc -print-file-name="$name")
        # cc prints the bare name if it does not find the file.
        [ -f "$from" ] || fail "$name is missing: install the packages libc6 and libgcc-s1"
        install -m 755 "$from" "$rootfs/lib/$triplet/$name"
    done
    readelf -dW "$rootfs/agent-net-nvml" | sed -n 's/.*(NEEDED).*\[\(.*\)]/\1/p' | while read -r name; do
        [ -f "$rootfs/lib/$triplet/$name" ] || [ "$name" = "${interpreter##*/}" ] ||
            fail "the helper needs $name, which is not in the image"
    done
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
    PATH=$PATH:/usr/sbin:/sbin
    need ldconfig "the package libc-bin"
    # -r changes the root directory, which needs root or a user namespace.
    if ldconfig -X -r "$rootfs" 2>/dev/null || unshare --user --map-root-user ldconfig -X -r "$rootfs" 2>/dev/null; then
        chmod 644 "$rootfs/etc/ld.so.cache"
    else
        say "warning: no ld.so.cache, since only root can create one here; NVIDIA container tools before 1.15 need it"
    fi
    # Only ldconfig uses its own cache.
    rm -rf "${rootfs:?}/var"
}

# The software bill of materials, for scanners (CycloneDX 1.5): the crates of both programs, and the copied files with
# their package and version.
write_sbom() {
    rootfs=$1
    sbom=$rootfs/usr/share/sbom/agent-net.cdx.json
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    mkdir -p "${sbom%/*}"
    {
        printf '{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,'
        printf '"metadata":{"component":{"type":"application","name":"agent-net","version":"%s"}},"components":[' "$version"
        {
            cargo tree --locked --edges normal --prefix none --format '{p}' --no-default-features --target "$musl"
            cargo tree --locked --edges normal --prefix none --format '{p}'
        } | sed -n '/ (\//d;s/^\([^ ]*\) v\([^ ]*\).*/\1 \2/p' | sort -u | while read -r crate number; do
            printf '{"type":"library","name":"%s","version":"%s","purl":"pkg:cargo/%s@%s"},\n' \
                "$crate" "$number" "$crate" "$number"
        done
        separator=
        find "$rootfs/lib" "$rootfs"/lib64 -type f 2>/dev/null | sort | while read -r file; do
            owner=$(dpkg-query -S "*/${file##*/}" 2>/dev/null | sed -n "s/^\([^:,]*\).*$triplet.*/\1/p" | head -n 1)
            number=$([ -z "$owner" ] || dpkg-query -W -f '${Version}' "$owner:$(dpkg --print-architecture)" 2>/dev/null)
            sum=$(sha256sum "$file" | cut -d ' ' -f 1)
            printf '%s{"type":"file","name":"%s","version":"%s","hashes":[{"alg":"SHA-256","content":"%s"}]' \
                "$separator" "${file#"$rootfs"}" "${number:-unknown}" "$sum"
            [ -z "$owner" ] || printf ',"purl":"pkg:deb/debian/%s@%s"' "$owner" "$(printf %s "$number" | sed 's/+/%2B/g')"
            printf '}'
            separator=',
'
        done
        printf ']}\n'
    } >"$sbom"
    chmod 644 "$sbom"
}

build_server
server=$built/$musl/release/agent-net
check_server "$server"
mkdir -p dist
if $server_only; then
    install -m 755 "$server" dist/agent-net
    say "dist/agent-net: $(wc -c <dist/agent-net) bytes"
    exit 0
fi

build_helper
# Assembled next to the old one, then moved into its place: an interrupted run leaves the old one.
new=$root/dist/rootfs.new
rm -rf "$new"
umask 022
mkdir -p "$new/usr/lib/$triplet" "$new/usr/lib64" "$new/run" "$new/proc" "$new/dev" "$new/sys" "$new/tmp" "$new/state"
# A volume mounted on an empty folder takes over its mode, so that any user the worker runs as can write there.
chmod 1777 "$new/tmp" "$new/state"
install -m 755 "$server" "$new/agent-net"
install -m 755 "$built/release/agent-net-nvml" "$new/agent-net-nvml"
copy_glibc "$new"
write_etc "$new"
write_sbom "$new"
rm -rf dist/rootfs
mv "$new" dist/rootfs

say "glibc $(ldd --version | sed -n '1s/.* //p') from $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
say "server $(wc -c <dist/rootfs/agent-net) bytes, helper $(wc -c <dist/rootfs/agent-net-nvml) bytes, file system $(du -sb dist/rootfs | cut -f1) bytes"
