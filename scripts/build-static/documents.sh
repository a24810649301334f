# Sourced by scripts/build-static.sh: what is in the image (its software bill of materials), and how it was built. Both
# are the same in any folder and at any time. It uses that script's functions and variables.
# shellcheck shell=sh

# shellcheck disable=SC2154 # set by the script that sources this
: "$arch" "$gcc" "$gnu" "$host" "$musl" "$separator" "$version"

# ---- the software bill of materials ----

# crates_of PROGRAM TARGET OPTION...: lines of `crate|NAME|VERSION|LICENSE|PROGRAM|PURL` and `edge|FROM|TO`. Left out
# are procedural macros and what they need, which run in the compiler, and stubs, which are part of this source.
crates_of() {
    program=$1
    target=$2
    shift 2
    cargo tree --locked --edges normal --prefix depth --no-dedupe --format '|{p}|{l}' --target "$target" "$@" |
        awk -F '|' -v program="$program" '
            left_out && $1 + 0 > left_out { next }
            { left_out = 0 }
            $1 + 0 > 0 && / \((proc-macro|\/)/ { left_out = $1 + 0; next }
            {
                split($2, word, " ")
                number = substr(word[2], 2)
                license = $3
                gsub(/ *\/ */, " OR ", license)
                ref = number
                gsub(/[+]/, "%2B", ref)
                path[$1 + 0] = "pkg:cargo/" word[1] "@" ref
            }
            $1 == 0 { path[0] = "/" program; next }
            {
                print "crate|" word[1] "|" number "|" license "|" program "|" path[$1 + 0]
                print "edge|" path[$1 - 1] "|" path[$1 + 0]
            }'
}

# What crates.io says of each crate: lines of `sum|NAME|VERSION|SHA-256`.
sums_of_crates() {
    sed -n 's/^name = "\(.*\)"/name \1/p;s/^version = "\(.*\)"/version \1/p;s/^checksum = "\(.*\)"/sum \1/p' Cargo.lock |
        awk '$1 == "name" { name = $2 } $1 == "version" { number = $2 } $1 == "sum" { print "sum|" name "|" number "|" $2 }'
}

# owner_of NAME: sets $owner and $number to the package of a glibc file and its version. Empty: unknown
owner_of() {
    package=$(package_of "$1")
    owner=${package% *}
    number=${package#* }
}

# list_files ROOTFS: lines of `file|PATH|SHA-256|VERSION|LICENSE|PURL` of the glibc files
list_files() {
    distribution=$(sed -n 's/^ID=//p' /etc/os-release)
    find "$1"/lib* -type f | sort | while read -r file; do
        owner_of "${file##*/}"
        license=
        case $owner in
        libc6*) license="LGPL-2.1-or-later" ;;
        libgcc*) license="GPL-3.0-or-later WITH GCC-exception-3.1" ;;
        esac
        purl=
        [ -z "$owner" ] ||
            purl="pkg:deb/${distribution:-debian}/$owner@$(printf %s "$number" | sed 's/+/%2B/g')?arch=$arch"
        printf 'file|%s|%s|%s|%s|%s\n' "${file#"$1"}" "$(sha256sum "$file" | cut -d ' ' -f 1)" "${number:-unknown}" \
            "$license" "$purl"
    done
}

# list_programs ROOTFS: lines of `program|NAME|SHA-256`
list_programs() {
    for name in agent-net agent-net-nvml; do
        printf 'program|%s|%s\n' "$name" "$(sha256sum "$1/$name" | cut -d ' ' -f 1)"
    done
}

# For scanners: both programs, the crates of each, Rust's standard library and the copied files, with licenses, hashes and
# who needs whom. Without a serial number, which would differ each time.
write_sbom() {
    rootfs=$1
    sbom=$rootfs/usr/share/sbom/agent-net.cdx.json
    mkdir -p "${sbom%/*}"
    {
        sums_of_crates
        list_programs "$rootfs"
        printf 'rust|agent-net|%s\n' "$(printf %s "$rustc_server" | cut -d ' ' -f 2)"
        printf 'rust|agent-net-nvml|%s\n' "$(printf %s "$rustc_helper" | cut -d ' ' -f 2)"
        {
            crates_of agent-net "$musl" --no-default-features
            crates_of agent-net-nvml "$gnu" --features nvml
        } | sort -u
        list_files "$rootfs"
    } | awk -v version="$version" -v arch="$arch" -v commit="$AGENT_NET_COMMIT" \
        -v time="$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
        -f scripts/build-static/sbom.awk >"$sbom"
    chmod 644 "$sbom"
}

# ---- how it was built ----

# json_list FLAGS: separated ones, as an array of JSON
json_list() {
    printf '['
    comma=
    rest=$1
    while [ -n "$rest" ]; do
        case $rest in
        *"$separator"*)
            first=${rest%%"$separator"*}
            rest=${rest#*"$separator"}
            ;;
        *)
            first=$rest
            rest=
            ;;
        esac
        printf %s "$comma"
        json "$first"
        comma=', '
    done
    printf ']'
}

# linker_of PROGRAM: LLVM's linker leaves its name in a program. GNU's does not.
linker_of() {
    linker=$(readelf -p .comment "$1" 2>/dev/null | sed -n 's/.*Linker: \(LLD [^ ]*\).*/\1/p' | head -n 1)
    [ -n "$linker" ] || linker=$("$("$gcc" -print-prog-name=ld)" --version | head -n 1)
    printf %s "$linker"
}

# glibc_packages ROOTFS: its packages as an array of JSON
glibc_packages() {
    printf '['
    find "$1"/lib* -type f | while read -r file; do
        owner_of "${file##*/}"
        [ -z "$owner" ] || printf '%s %s\n' "$owner" "$number"
    done | sort -u | {
        comma=
        while read -r owner number; do
            printf '%s{"package": %s, "version": %s}' "$comma" "$(json "$owner")" "$(json "$number")"
            comma=', '
        done
    }
    printf ']'
}

# write_build ROOTFS FILE: what the bytes depend on besides the commit. Folders that differ from machine to machine are
# named <source>, <target>, <crates> and <rust>.
write_build() {
    {
        printf '{\n'
        printf '  "arch": %s,\n' "$(json "$arch")"
        printf '  "version": %s,\n' "$(json "$version")"
        printf '  "commit": %s,\n' "$(if [ -z "$AGENT_NET_COMMIT" ]; then printf null; else json "$AGENT_NET_COMMIT"; fi)"
        printf '  "source_date_epoch": %s,\n' "$SOURCE_DATE_EPOCH"
        printf '  "os": %s,\n' "$(json "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)")"
        printf '  "debian_version": %s,\n' "$(json "$(cat "$1/etc/debian_version")")"
        printf '  "host": %s,\n' "$(json "$host")"
        printf '  "rustc": %s,\n' "$(json "$rustc_server")"
        printf '  "rustc_helper": %s,\n' "$(json "$rustc_helper")"
        printf '  "cargo": %s,\n' "$(json "$cargo_server")"
        printf '  "profile": "release",\n'
        printf '  "method_server": %s,\n' "$(json "$method_server")"
        printf '  "method_helper": %s,\n' "$(json "$method_helper")"
        printf '  "features_server": [],\n  "features_helper": ["nvml"],\n'
        printf '  "rustflags_server": %s,\n' "$(json_list "$rustflags_server")"
        printf '  "rustflags_helper": %s,\n' "$(json_list "$rustflags_helper")"
        printf '  "c_compiler": %s,\n' "$(json "$compiler_server")"
        printf '  "c_compiler_helper": %s,\n' "$(json "$compiler_helper")"
        printf '  "linker_server": %s,\n' "$(json "$(linker_of "$1/agent-net")")"
        printf '  "linker_helper": %s,\n' "$(json "$(linker_of "$1/agent-net-nvml")")"
        printf '  "ld_so_cache": %s,\n' "$(if [ -f "$1/etc/ld.so.cache" ]; then printf true; else printf false; fi)"
        printf '  "glibc": %s\n' "$(glibc_packages "$1")"
        printf '}\n'
    } >"$2"
    chmod 644 "$2"
    touch -d "@$SOURCE_DATE_EPOCH" "$2"
}
