#!/bin/sh
# Measures POST /gpu-check of two workers, one with little to tell and one with much, beside a rouille hello in
# one run, so that the machine's noise hits all three.
#
# Usage: scripts/bench.sh [--seconds N] [--connections N] [--rounds N]
#   defaults: 5 seconds, 10 connections, 3 rounds of each, in turn
#
# Needs wrk and curl. Builds all programs with --release and starts them on free ports of 127.0.0.1, on the tests'
# fake libnvidia-ml.so.1 and a made-up Ollama: small has 1 GPU and 1 model, large has 16 GPUs and 500 models.
# For each it also tells the size of an answer, the memory that is resident and the CPU time of one sample.
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
for tool in wrk curl; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: install the package $tool"
done
cargo build --quiet --locked --release --bins --example hello
built=${CARGO_TARGET_DIR:-target}/release

work=$(mktemp -d)
pids=
stop() {
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$pids" ] || kill $pids 2>/dev/null || :
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM

# shellcheck source=tests/bench/common.sh
. tests/bench/common.sh
compile_fake_nvml "$work"
printf 'wrk.method = "POST"\nwrk.body = "{\\"agent_id\\":\\"bench\\"}"\n' >"$work/job.lua"

: >"$work/hello"
"$built/examples/hello" >"$work/hello" &
pids="$pids $!"
hello=$(await "$work/hello" 's/^\(.*:.*\)$/\1/p')

# worker NAME GPUS MODELS: starts it
worker() {
    printf 'gpus=%s\n' "$2" >"$work/$1.gpus"
    : >"$work/$1"
    env SERVER_HOST=127.0.0.1 SERVER_PORT=0 SAMPLE_INTERVAL=1s OLLAMA_URL="http://$hello/ollama/$3" \
        NVML_LIB="$work/libnvidia-ml.so.1" FAKE_NVML="$work/$1.gpus" "$built/agent-net" serve 2>"$work/$1" &
    pid=$!
    pids="$pids $pid"
}
worker small 1 1
small_pid=$pid
worker large 16 500
large_pid=$pid
small=$(await "$work/small" 's/.*listening on http:\/\///p')
large=$(await "$work/large" 's/.*listening on http:\/\///p')

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

# ticks PID: its CPU time in hundredths of a second
ticks() {
    sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 12,13 | tr ' ' +
}

# resident PID: MiB
resident() {
    awk '$1 == "VmRSS:" { printf "%.1f", $2 / 1024 }' "/proc/$1/status"
}

# at_rest NAME PID ADDR: the answer's size, what is resident, and what a sample costs while nobody asks
at_rest() {
    helper=$(child_of "$2")
    size=$(curl -sS -m 5 -d '{"agent_id":"bench"}' "http://$3/gpu-check" | wc -c)
    before=$(($(ticks "$2") + $(ticks "$helper")))
    sleep 20
    after=$(($(ticks "$2") + $(ticks "$helper")))
    printf '%-7s %9d bytes an answer   %s MiB resident, helper %s   %d.%d ms of CPU a second at 1 sample a second\n' \
        "$1" "$size" "$(resident "$2")" "$(resident "$helper")" $(((after - before) / 2)) $(((after - before) % 2 * 5))
}

sleep 2
at_rest small "$small_pid" "$small"
at_rest large "$large_pid" "$large"
printf '%s connections, %s s a round\n' "$connections" "$seconds"
i=0
while [ "$i" -lt "$rounds" ]; do
    round small "$small"
    round large "$large"
    round hello "$hello"
    i=$((i + 1))
done
at_rest small "$small_pid" "$small"
at_rest large "$large_pid" "$large"

# The ratio of the medians.
awk -v rounds="$rounds" '
    { n[$1]++; rate[$1, n[$1]] = $2 }
    function median(name,   i, j, t) {
        for (i = 1; i <= rounds; i++) for (j = i + 1; j <= rounds; j++) if (rate[name, j] < rate[name, i]) {
            t = rate[name, i]; rate[name, i] = rate[name, j]; rate[name, j] = t
        }
        return rate[name, int((rounds + 1) / 2)]
    }
    END { printf "small/hello %.2f  large/small %.2f\n", median("small") / median("hello"), median("large") / median("small") }
' "$work/rounds"
