#!/bin/sh
# Measures POST /gpu-check beside a rouille hello in one run, so that the machine's noise hits both.
#
# Usage: scripts/bench.sh [--seconds N] [--connections N] [--rounds N]
#   defaults: 5 seconds, 10 connections, 3 rounds of each, in turn
#
# Needs wrk. Builds both programs with --release and starts them on free ports of 127.0.0.1; the GPUs are those of
# this machine, or with FAKE_GPUS=N those of the tests' fake libnvidia-ml.so.1. Ollama is asked at OLLAMA_URL.
#
# Exit codes: 0 measured, 1 something is missing or failed, 64 usage
set -eu

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

fail() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

seconds=5 connections=10 rounds=3
while [ $# -gt 0 ]; do
    case $1 in
    --seconds | --connections | --rounds)
        case ${2:-} in
        '' | *[!0-9]*)
            printf 'bench: %s needs a number\n' "$1" >&2
            exit 64
            ;;
        esac
        eval "${1#--}=\$2"
        shift 2
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        printf 'bench: unknown argument: %s (see --help)\n' "$1" >&2
        exit 64
        ;;
    esac
done

cd "$(dirname "$0")/.."
command -v wrk >/dev/null 2>&1 || fail "wrk is missing: install the package wrk"
cargo build --quiet --locked --release --bins --example hello
built=${CARGO_TARGET_DIR:-target}/release

work=$(mktemp -d)
worker='' hello=''
stop() {
    [ -z "$worker" ] || kill "$worker" 2>/dev/null || :
    [ -z "$hello" ] || kill "$hello" 2>/dev/null || :
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM

if [ -n "${FAKE_GPUS:-}" ]; then
    rustc --edition 2024 --crate-type cdylib -O -C panic=abort -o "$work/libnvidia-ml.so.1" tests/it/nvml/fake.rs
    printf 'gpus=%s\n' "$FAKE_GPUS" >"$work/fake"
    export NVML_LIB="$work/libnvidia-ml.so.1" FAKE_NVML="$work/fake"
fi
printf 'wrk.method = "POST"\nwrk.body = "{\\"agent_id\\":\\"bench\\"}"\n' >"$work/job.lua"

: >"$work/log"
: >"$work/hello"
SERVER_HOST=127.0.0.1 SERVER_PORT=0 "$built/agent-net" serve 2>"$work/log" &
worker=$!
"$built/examples/hello" >"$work/hello" &
hello=$!

# await FILE PATTERN: the text that PATTERN finds in FILE, waiting 10 s for it
await() {
    tries=100
    while [ "$tries" -gt 0 ]; do
        found=$(sed -n "$2" "$1" | head -n 1)
        [ -z "$found" ] || break
        sleep 0.1
        tries=$((tries - 1))
    done
    [ -n "$found" ] || fail "nothing listens: $(cat "$1")"
    printf %s "$found"
}
worker_addr=$(await "$work/log" 's/.*listening on http:\/\///p')
hello_addr=$(await "$work/hello" 's/^\(.*:.*\)$/\1/p')

# round NAME ADDR
round() {
    wrk -t 2 -c "$connections" -d "${seconds}s" --latency -s "$work/job.lua" "http://$2/gpu-check" >"$work/out"
    ! grep -E 'Non-2xx|Socket errors' "$work/out" >&2 || fail "$1 answered with errors"
    awk -v name="$1" '
        $1 == "50%" { p50 = $2 }
        $1 == "99%" { p99 = $2 }
        $1 == "Requests/sec:" { printf "%-7s %9.0f requests/s   p50 %8s   p99 %8s\n", name, $2, p50, p99 }
    ' "$work/out" | tee -a "$work/rounds"
}

printf '%s connections, %s s a round\n' "$connections" "$seconds"
i=0
while [ "$i" -lt "$rounds" ]; do
    round worker "$worker_addr"
    round hello "$hello_addr"
    i=$((i + 1))
done

# The ratio of the medians.
awk -v rounds="$rounds" '
    { n[$1]++; rate[$1, n[$1]] = $2 }
    function median(name,   i, j, t) {
        for (i = 1; i <= rounds; i++) for (j = i + 1; j <= rounds; j++) if (rate[name, j] < rate[name, i]) {
            t = rate[name, i]; rate[name, i] = rate[name, j]; rate[name, j] = t
        }
        return rate[name, int((rounds + 1) / 2)]
    }
    END { printf "worker/hello %.2f\n", median("worker") / median("hello") }
' "$work/rounds"

# resident PID NAME: what it holds in memory
resident() {
    awk -v name="$2" '$1 == "VmRSS:" { printf "%s %.1f MiB resident\n", name, $2 / 1024 }' "/proc/$1/status"
}
resident "$worker" worker
cat /proc/"$worker"/task/*/children | tr ' ' '\n' | while read -r child; do
    resident "$child" helper
done
