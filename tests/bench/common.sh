# Shared by scripts/bench.sh, soak.sh, attack.sh, fleet.sh and demo.sh, which source it in the project's folder.
# shellcheck shell=sh

name=$(basename "$0" .sh)

fail() {
    printf '%s: %s\n' "$name" "$*" >&2
    exit 1
}

# misused WHY: exits with 64
misused() {
    printf '%s: %s (see --help)\n' "$name" "$*" >&2
    exit 64
}

# number OPTION VALUE...: prints the value if it is a number
number() {
    case ${2:-} in
    '' | *[!0-9]*) misused "$1 needs a number" ;;
    esac
    printf %s "$2"
}

# other ARGUMENT: prints the help, which is the script's first comment, or rejects the argument
other() {
    case $1 in
    -h | --help) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "scripts/$name.sh" ;;
    *) misused "unknown argument: $1" ;;
    esac
    exit 0
}

# begin: sets work to a folder with the simulated libnvidia-ml.so.1, and pids to the processes to stop at the end
begin() {
    work=$(mktemp -d)
    pids=
    trap stop EXIT
    trap 'exit 1' INT TERM
    compile_fake_nvml "$work"
}

stop() {
    # What was stopped hears nothing before it goes on.
    for pid in $pids; do
        kill -CONT "$pid" 2>/dev/null || :
        kill "$pid" 2>/dev/null || :
    done
    rm -rf "$work"
}

# start_hello THREADS: starts tests/bench/hello with that many threads; sets hello to its address, and hello_program
start_hello() {
    built_hello=${CARGO_TARGET_DIR:-target}/hello
    cargo build --quiet --locked --release --manifest-path tests/bench/hello/Cargo.toml --target-dir "$built_hello"
    hello_program=$built_hello/release/hello
    : >"$work/hello"
    "$hello_program" "$@" >"$work/hello" &
    pids="$pids $!"
    # shellcheck disable=SC2034 # used by the scripts that source this
    hello=$(await "$work/hello" 's/^\(.*:.*\)$/\1/p')
}

# compile_fake_nvml FOLDER: builds the simulated libnvidia-ml.so.1 there
compile_fake_nvml() {
    rustc --edition 2024 --crate-type cdylib -O -C panic=abort -o "$1/libnvidia-ml.so.1" tests/it/nvml/fake.rs
}

# await FILE PATTERN: waits up to 10 s for the text that PATTERN finds in FILE, and prints it
await() {
    tries=100
    while [ "$tries" -gt 0 ]; do
        found=$(sed -n "$2" "$1" | head -n 1)
        [ -z "$found" ] || break
        sleep 0.1
        tries=$((tries - 1))
    done
    [ -n "$found" ] || fail "nothing is listening: $(cat "$1")"
    printf %s "$found"
}

# child_of PID: its helper
child_of() {
    cat "/proc/$1/task"/*/children 2>/dev/null | tr -s ' ' '\n' | sed -n '/./{p;q;}'
}
