#!/bin/sh
# Runs one worker at full speed while everything around it fails repeatedly, and checks that memory stays flat and
# answers stay correct.
#
# Usage: scripts/soak.sh [--minutes N]
#   --minutes  duration; default 10
#
# Runs the programs of dist/rootfs (scripts/build-static.sh) with a simulated GPU and Ollama. Meanwhile the helper is
# killed with kill -9, hangs, loses GPUs and finds them again, Ollama hangs, and clients send garbage, are slow, or
# leave. Each response to a job must be a 200 for that job's agent. At the end memory, descriptors and threads must be
# what they were after the first third, and the verdict ok. Requires wrk and curl.
#
# Exit codes: 0 passed, 1 failed or a tool is missing, 64 usage
set -eu

unset CDPATH
cd "$(dirname "$0")/.."
# shellcheck source=tests/bench/common.sh
. tests/bench/common.sh

minutes=10
while [ $# -gt 0 ]; do
    case $1 in
    --minutes) minutes=$(number "$@") ;;
    *) other "$1" ;;
    esac
    shift 2
done

for tool in wrk curl rustc; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: install it"
done
[ -x dist/rootfs/agent-net ] || fail "dist/rootfs is missing: run scripts/build-static.sh"

begin
cat >"$work/job.lua" <<'LUA'
local threads = {}
function setup(thread)
    table.insert(threads, thread)
end
function init()
    good, bad, what = 0, 0, ""
    wrk.method = "POST"
    wrk.body = '{"agent_id":"soak"}'
end
function response(status, headers, body)
    if status == 200 and body:find('"agent_id":"soak"', 1, true) and body:sub(-1) == "}" then
        good = good + 1
    else
        bad, what = bad + 1, status .. " " .. body:sub(1, 200)
    end
end
function done()
    for _, thread in ipairs(threads) do
        print("jobs " .. thread:get("good") .. " " .. thread:get("bad") .. " " .. thread:get("what"))
    end
end
LUA

start_hello 8
ollama=${pids# }
good_gpus='gpus=4'
printf '%s\n' "$good_gpus" >"$work/gpus"
mkdir "$work/state"
: >"$work/log"
env SERVER_HOST=127.0.0.1 SERVER_PORT=0 SAMPLE_INTERVAL=200ms CAPABILITY_CAPACITY=100 OLLAMA_URL="http://$hello/ollama/20" \
    STATE_DIR="$work/state" NVML_LIB="$work/libnvidia-ml.so.1" FAKE_NVML="$work/gpus" \
    GPU_SHORT_TERM_UPTIME_THRESHOLD=0 GPU_MEDIUM_TERM_UPTIME_THRESHOLD=0 GPU_LONG_TERM_UPTIME_THRESHOLD=0 \
    dist/rootfs/agent-net serve 2>"$work/log" &
worker=$!
pids="$pids $worker"
addr=$(await "$work/log" 's/.*listening on http:\/\///p')
head -c 60000 /dev/zero | tr '\0' ' ' >"$work/blanks"

gpus() {
    printf '%b\n' "$1" >"$work/gpus.new"
    mv "$work/gpus.new" "$work/gpus"
}

# faults: one round of everything that can go wrong around a worker, 20 s
faults() {
    now=$(child_of "$worker")
    [ -z "$now" ] || kill -9 "$now" 2>/dev/null || :
    sleep 3
    gpus "$good_gpus\ngpu2.handle=15"
    printf 'garbage\r\n\r\n' | curl -s -m 1 "telnet://$addr" >/dev/null 2>&1 || :
    sleep 3
    gpus "$good_gpus\ngpu1.temperature=97"
    kill -STOP "$ollama"
    curl -s -m 8 --limit-rate 5000 -d "@$work/blanks" "http://$addr/gpu-check" >/dev/null 2>&1 &
    slow=$!
    sleep 4
    kill -CONT "$ollama"
    now=$(child_of "$worker")
    [ -z "$now" ] || kill -STOP "$now" 2>/dev/null || :
    sleep 6
    gpus "$good_gpus"
    curl -s -m 1 -d '{"agent_id":' "http://$addr/gpu-check" >/dev/null 2>&1 || :
    sleep 2
    kill -9 "$slow" 2>/dev/null || :
    wait "$slow" 2>/dev/null || :
    sleep 2
}

# size: resident KiB, descriptors and threads, once the load has ended
size() {
    sleep 5
    resident=$(awk '$1 == "VmRSS:" { print $2 }' "/proc/$worker/status")
    threads=$(awk '$1 == "Threads:" { print $2 }' "/proc/$worker/status")
    # shellcheck disable=SC2012 # numbers only
    descriptors=$(ls "/proc/$worker/fd" | wc -l)
    printf '%s %s %s\n' "$resident" "$descriptors" "$threads"
}

# load SECONDS: jobs at full speed, and faults
load() {
    wrk -t 2 -c 20 -d "${1}s" --timeout 10s -s "$work/job.lua" "http://$addr/gpu-check" >"$work/out" &
    load=$!
    while kill -0 "$load" 2>/dev/null; do
        faults
    done
    wait "$load" || fail "wrk failed: $(cat "$work/out")"
    sed -n 's/^jobs //p' "$work/out" >>"$work/jobs"
    ! grep -E 'Socket errors' "$work/out" >&2 || fail "jobs were lost"
}

third=$((minutes * 20))
load "$third"
before=$(size)
load "$third"
load "$third"
after=$(size)

kill -0 "$worker" 2>/dev/null || fail "the worker has ended: $(tail -n 5 "$work/log")"
[ "$(grep -c 'listening on' "$work/log")" = 1 ] || fail "the worker was restarted"
! grep -i 'panicked' "$work/log" >&2 || fail "a thread of the worker panicked"
verdict=$(curl -s -m 5 "http://$addr/gpu?format=text" | sed -n 's/^verdict=//p')
awk '{ good += $1; bad += $2; if ($2 > 0) print "soak: wrong: " $0 } END { printf "soak: %d jobs, %d wrong\n", good, bad; exit bad > 0 }' \
    "$work/jobs" || fail "there were wrong responses"
printf 'soak: KiB resident, descriptors, threads: %s after a third, %s at the end; verdict %s\n' "$before" "$after" "$verdict"
[ "$verdict" = ok ] || fail "the verdict is $verdict: $(curl -s -m 5 "http://$addr/gpu?format=text" | sed -n 's/^reasons=//p')"
# shellcheck disable=SC2086 # three numbers each
set -- $before $after
[ "$4" -le $(($1 + 2048)) ] || fail "memory grows"
[ "$5" -le $(($2 + 4)) ] || fail "descriptors grow"
[ "$6" -le $(($3 + 4)) ] || fail "threads grow"
