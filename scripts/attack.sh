#!/bin/sh
# Runs 2,750 misbehaving clients against one worker and reports how a well-behaved client fares.
#
# Usage: scripts/attack.sh [--minutes N] [--files N]
#   --minutes  duration; default 1
#   --files    limit of open files for the worker; default that of the shell
#
# Runs the worker of dist/rootfs (scripts/build-static.sh) with a simulated GPU and Ollama. The misbehaving clients are
# those of tests/bench/hostile.rs, and the slow headers, bodies and readers of slowhttptest if it is installed.
# Everything stays on 127.0.0.1.
#
# Exit codes: 0 passed (no job failed, at most 32 MiB resident), 1 failed or a tool is missing, 64 usage
set -eu

unset CDPATH
cd "$(dirname "$0")/.."
# shellcheck source=tests/bench/common.sh
. tests/bench/common.sh

minutes=1 files=$(awk '/^Max open files/ { print $4 }' /proc/self/limits)
while [ $# -gt 0 ]; do
    case $1 in
    --minutes) minutes=$(number "$@") ;;
    --files) files=$(number "$@") ;;
    *) other "$1" ;;
    esac
    shift 2
done

for tool in rustc prlimit; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: install it"
done
[ -x dist/rootfs/agent-net ] || fail "dist/rootfs is missing: run scripts/build-static.sh"
cargo build --quiet --locked --release --example hostile
built=${CARGO_TARGET_DIR:-target}/release/examples

begin
start_hello 8
printf 'gpus=1\n' >"$work/gpus"
: >"$work/log"
# The hard limit as well, since the worker raises the soft one.
env SERVER_HOST=127.0.0.1 SERVER_PORT=0 OLLAMA_URL="http://$hello/ollama/1" \
    NVML_LIB="$work/libnvidia-ml.so.1" FAKE_NVML="$work/gpus" \
    prlimit --nofile="$files:$files" dist/rootfs/agent-net serve 2>"$work/log" &
worker=$!
pids="$pids $worker"
addr=$(await "$work/log" 's/.*listening on http:\/\///p')
sleep 1

# resident: KiB
resident() {
    awk '$1 == "VmRSS:" { print $2 }' "/proc/$worker/status"
}

seconds=$((minutes * 60))
printf 'before   %s\n' "$("$built/hostile" "$addr" 5 0)"
if command -v slowhttptest >/dev/null 2>&1; then
    for kind in '-H' '-B -s 8192' '-X -w 10 -y 20 -n 1 -z 32 -k 3'; do
        # shellcheck disable=SC2086 # options
        slowhttptest $kind -c 300 -r 100 -i 1 -l "$seconds" -u "http://$addr/gpu-check" >/dev/null 2>&1 &
        pids="$pids $!"
    done
    with=" and slowhttptest's 900"
else
    with=
fi
"$built/hostile" "$addr" "$seconds" >"$work/attack" &
attack=$!
pids="$pids $attack"
most=0
while kill -0 "$attack" 2>/dev/null; do
    now=$(resident)
    [ "${now:-0}" -le "$most" ] || most=$now
    sleep 0.5
done
printf 'attacked %s\n' "$(cat "$work/attack")"
sleep 2
printf 'after    %s\n' "$("$built/hostile" "$addr" 5 0)"
printf '%s open files, 2,750 misbehaving clients%s, %s s: %s KiB resident at most, %s now\n' \
    "$files" "$with" "$seconds" "$most" "$(resident)"
grep -q 'failed 0 ' "$work/attack" || fail "jobs failed"
[ "$most" -le 32768 ] || fail "more than 32 MiB were resident"
! grep -i 'panicked' "$work/log" >&2 || fail "a thread of the worker panicked"
