# Sourced by scripts/build-static.sh: compiles the programs, for this machine's architecture or another one. It uses that
# script's functions and variables.
# shellcheck shell=sh

# shellcheck disable=SC2154 # set by the script that sources this
: "$arch" "$built" "$cpu" "$cross" "$gnu" "$host" "$musl" "$root" "$server_only" "$triplet"

gcc=cc
! $cross || gcc=$triplet-gcc
from_debian=false
rustc=rustc

# ---- flags ----

# Cargo takes flags with spaces in them where this character separates them.
separator=$(printf '\037')

# flag FLAG [SHOWN]: adds it to $flags, and to $shown what dist/build-ARCH.json lists: the same on every machine, once
flag() {
    flags=${flags:+$flags$separator}$1
    case $separator$shown$separator in
    *"$separator${2:-$1}$separator"*) ;;
    *) shown=${shown:+$shown$separator}${2:-$1} ;;
    esac
}

# remap FOLDER NAME WHAT: the programs have this name in place of a folder that differs from machine to machine.
remap() {
    flag "--remap-path-prefix=$1=$2" "--remap-path-prefix=<$3>=$2"
    # Quoted as CC_SHELL_ESCAPED_FLAGS expects it.
    c_flags="$c_flags '-ffile-prefix-map=$(printf %s "$1" | sed "s/'/'\\\\''/g")=$2'"
}

# Sets $flags and $c_flags to those of both programs. A panic names the file that it is in. Without the folder of all
# crates before their names the server is smaller. Where several prefixes fit, the last one counts.
common_flags() {
    flags=
    shown=
    c_flags=
    remap "$root" . source
    remap "$built" target target
    # Where the standard library's source is installed.
    rust_commit=$("$rustc" -vV | sed -n 's/^commit-hash: \([0-9a-f]\{40\}\)$/\1/p')
    [ -z "$rust_commit" ] || remap "$("$rustc" --print sysroot)/lib/rustlib/src/rust" "/rustc/$rust_commit" rust
    for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        remap "$crates" "" crates/
    done
}

static_flags() {
    # Without relocation-model=static the binary needs an interpreter, which an empty image lacks.
    flag -Ctarget-feature=+crt-static
    flag -Crelocation-model=static
    # With a register that points to each frame, the tables by which a panic finds its way are a third smaller: 130 KB.
    flag -Cforce-frame-pointers=yes
    # A table of jumps takes 8 bytes for each value: where they are few, comparisons are smaller.
    flag -Cllvm-args=-min-jump-table-entries=12
}

# ---- tools ----

# has_target TARGET: true if rustc has its standard library
has_target() {
    libdir=$(rustc --print target-libdir --target "$1" 2>/dev/null) || return 1
    for std in "$libdir"/libstd-*.rlib; do
        [ -f "$std" ] && return 0
    done
    return 1
}

# use_tools TARGET COMPILER [LINKER]: sets CC_x86_64_unknown_linux_musl, its CFLAGS and
# CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER
use_tools() {
    name=$(printf %s "$1" | tr - _)
    upper=$(printf %s "$name" | tr '[:lower:]' '[:upper:]')
    # shellcheck disable=SC2034 # for dist/build-ARCH.json
    compiler=$2
    export "CC_$name=$2" "CFLAGS_$name=$c_flags"
    [ "$#" -lt 3 ] || export "CARGO_TARGET_${upper}_LINKER=$3"
}

has_debian_std() {
    [ -f /usr/lib/rustlib/src/rust/library/Cargo.lock ] && [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ]
}

use_debian_std() {
    from_debian=true
    rustc=/usr/bin/rustc
}

# run_cargo COMMAND ARGUMENT...: this command with $flags. To build the standard library from Debian's source needs a
# nightly compiler. RUSTC_BOOTSTRAP enables it on a stable one.
run_cargo() {
    if $from_debian; then
        command=$1
        shift
        CARGO_ENCODED_RUSTFLAGS=$flags RUSTC=$rustc RUSTC_BOOTSTRAP=1 \
            /usr/bin/cargo "$command" -Z build-std=std,panic_unwind "$@"
    else
        CARGO_ENCODED_RUSTFLAGS=$flags cargo "$@"
    fi
}

# LLVM's linker has one copy of functions that are equal. musl-gcc links without it, 40 KB larger.
use_lld() {
    [ -x "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld" ] || return 1
    linker="rust-lld"
    export "CARGO_TARGET_${upper}_LINKER=$linker"
    flag -Clink-arg=--icf=all
    flag -Clink-arg=-O2
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
    printf 'INPUT("%s" "%s")\n' "$unwind" "$shim/libchk.a" >"$shim/libunwind.a"
    flag "-Lnative=$shim" "-Lnative=<target>/shim"
}

# Builds the server. $method says how.
build_server() {
    cargo fetch --locked --target "$musl" --target "$gnu"
    set -- build --locked --release --no-default-features --bin agent-net --target-dir "$built"
    case $host in
    *-linux-musl)
        $server_only || fail "the helper needs glibc, which this machine lacks: build on Debian, or only the server with --server-only"
        musl=$host
        common_flags
        static_flags
        say "server: this machine's own musl compiler ($(rustc --version))"
        run_cargo "$@" --target "$musl"
        return
        ;;
    esac
    if $cross; then
        cross_server "$@"
        return
    fi
    need musl-gcc "the package musl-tools"
    linker="musl-gcc"
    if has_target "$musl"; then
        common_flags
        static_flags
        use_tools "$musl" musl-gcc "$linker"
        use_lld || :
        method="rustup's target $musl with musl-gcc and the linker $linker"
    elif has_debian_std; then
        use_debian_std
        common_flags
        static_flags
        flag -Clink-self-contained=no
        make_unwind_shim
        use_tools "$musl" musl-gcc "$linker"
        method="standard library from Debian's rust-web-src"
    else
        fail "no standard library for $musl: run \`rustup target add $musl\`, or on Debian 12 install rustc-web, cargo-web, rust-web-src and libunwind-14-dev"
    fi
    say "server: $method ($("$rustc" --version))"
    run_cargo "$@" --target "$musl"
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

# check_pages FILE: an arm64 kernel may have pages of 64 KiB, and starts no program whose parts share such a page.
check_pages() {
    [ "$arch" = arm64 ] || return 0
    for align in $(readelf -lW "$1" | awk '$1 == "LOAD" { print $NF }'); do
        [ "$((align))" -ge 65536 ] || fail "$1 is aligned to $align; a kernel with pages of 64 KiB would not start it"
    done
}

# Builds the helper. $method says how.
build_helper() {
    need "$gcc" "the package $(if $cross; then printf %s "crossbuild-essential-$arch"; else printf build-essential; fi)"
    from_debian=false
    rustc=rustc
    if has_target "$gnu"; then
        method="rustup's target $gnu with $gcc"
        # A Rust of the distribution has the same way.
        case $("$rustc" --print sysroot) in
        /usr) method="this machine's Rust with $gcc" ;;
        esac
    elif has_debian_std; then
        use_debian_std
        method="standard library from Debian's rust-web-src with $gcc"
    else
        fail "no standard library for $gnu: run \`rustup target add $gnu\`, or on Debian 12 install rustc-web, cargo-web and rust-web-src"
    fi
    common_flags
    if $cross; then
        use_tools "$gnu" "$gcc" "$gcc"
    else
        # With a linker of its own this machine's target would no longer share the crates that the compiler runs.
        use_tools "$gnu" "$gcc"
    fi
    say "helper: $method ($("$rustc" --version))"
    # Named even where it is this machine's: the bytes are the same crossed or not.
    run_cargo build --locked --release --features nvml --bin agent-net-nvml --target-dir "$built" --target "$gnu"
}

# ---- another architecture ----

zig_version=0.17.1

# Makes $zig_cc, a C compiler and linker for musl. Zig brings musl, its start files and an unwinder that finds the frames
# of a musl program, in place of the libraries that rustc names. It refuses rustc's and cc's names of the target.
make_zig_cc() {
    zig=$(command -v zig) || {
        home=$built/zig-$zig_version
        find_zig || install_zig || fail "zig is missing, and PyPI's ziglang $zig_version could not be installed: install zig, or python3-venv"
    }
    zig_cc=$built/zig-cc-$arch
    export ZIG_GLOBAL_CACHE_DIR="$built/zig-cache" ZIG_LOCAL_CACHE_DIR="$built/zig-cache"
    cat >"$zig_cc" <<SCRIPT
#!/bin/sh
for arg in "\$@"; do
    shift
    case \$arg in
    --target=* | -lgcc_s | -lgcc) ;;
    *) set -- "\$@" "\$arg" ;;
    esac
done
exec '$zig' cc -target $cpu-linux-musl "\$@"
SCRIPT
    chmod +x "$zig_cc"
}

find_zig() {
    for zig in "$home"/lib/python3*/site-packages/ziglang/zig; do
        [ ! -x "$zig" ] || return 0
    done
    return 1
}

install_zig() {
    say "installing ziglang $zig_version from PyPI into $home"
    rm -rf "$home"
    python3 -m venv "$home" && "$home/bin/pip" install -q --disable-pip-version-check "ziglang==$zig_version" && find_zig
}

# cross_server ARGUMENT...: the server by cargo with these arguments
cross_server() {
    need "$gcc" "the package crossbuild-essential-$arch"
    if has_target "$musl"; then
        common_flags
        static_flags
        # Ubuntu's compiler calls functions of glibc that musl lacks.
        c_flags="-U_FORTIFY_SOURCE -fno-stack-protector$c_flags"
        use_tools "$musl" "$gcc" rust-lld
        use_lld || fail "this Rust has no rust-lld: install Rust with rustup"
        method="rustup's target $musl with $gcc and the linker rust-lld"
    elif has_debian_std; then
        make_zig_cc
        use_debian_std
        common_flags
        static_flags
        flag -Clink-self-contained=no
        use_tools "$musl" "$zig_cc" "$zig_cc"
        method="standard library from Debian's rust-web-src with zig $("$zig" version)"
    else
        fail "no standard library for $musl: run \`rustup target add $musl $gnu\`, or on Debian 12 install rustc-web, cargo-web and rust-web-src"
    fi
    say "server: $method ($("$rustc" --version))"
    run_cargo "$@" --target "$musl"
}

# build_fake_nvml NAME OPTION...: the tests' library as a package of its own, with the profile of the helper so that they
# share a standard library. It names the libraries that the real one names.
build_fake_nvml() {
    folder=dist/fake-nvml-$arch/$1
    shift
    package=$built/fake-nvml
    mkdir -p "$package"
    {
        printf '[package]\nname = "fake-nvml"\nedition = "2024"\n'
        printf '[lib]\nname = "nvidia_ml"\ncrate-type = ["cdylib"]\npath = "%s/tests/it/nvml/fake.rs"\n[workspace]\n' "$root"
        sed -n '/^\[profile.release]/,/^$/p' Cargo.toml
    } >"$package/Cargo.toml"
    set -- rustc --release --manifest-path "$package/Cargo.toml" --target-dir "$built" --target "$gnu" -- "$@" \
        -C link-arg=-Wl,-soname,libnvidia-ml.so.1 -C link-arg=-Wl,--no-as-needed
    for name in libpthread.so.0 libdl.so.2 librt.so.1 libm.so.6; do
        set -- "$@" -C "link-arg=$("$gcc" -print-file-name="$name")"
    done
    run_cargo "$@"
    install -D -m 755 "$built/$gnu/release/libnvidia_ml.so" "$folder/libnvidia-ml.so.1"
}
