#!/bin/sh
# Demonstrates the whole chain without a GPU, Ollama or go-livepeer: all three are simulated. So are all numbers.
#
# Usage: scripts/demo.sh [--once]
#   --once  end after the last step; otherwise the worker runs until Ctrl-C, for its status page
#
# Builds the worker with cargo, starts everything on free ports of 127.0.0.1, registers the worker, sends jobs through
# the simulated gateway, and lets a GPU overheat, disappear and return. Requires cargo and curl.
#
# Exit codes: 0 all steps succeeded, 1 a step failed or a tool is missing, 64 usage
set -eu

unset CDPATH
cd "$(dirname "$0")/.."
# shellcheck source=tests/bench/common.sh
. tests/bench/common.sh

step() {
    printf '\n== demo, no real GPU: %s\n' "$*"
}

once=false
for arg in "$@"; do
    case $arg in
    --once) once=true ;;
    *) other "$arg" ;;
    esac
done

for tool in cargo curl; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: install it"
done
printf 'Building, which takes a few minutes the first time.\n'
cargo build --quiet --locked --bins --example fakes
built=${CARGO_TARGET_DIR:-target}/debug

begin
trap 'exit 0' INT TERM
start_hello 8
# Close to a port that was free a moment ago.
port=$((${hello#*:} % 20000 + 10002))
"$built/examples/fakes" orchestrator "$port" >"$work/orchestrator" &
pids="$pids $!"
gateway=http://127.0.0.1:$port

gpus() {
    printf 'gpu*.name=Simulated GPU\n%b\n' "$1" >"$work/gpus.new"
    mv "$work/gpus.new" "$work/gpus"
}

step "a worker with two GPUs registers with an orchestrator"
gpus 'gpus=2'
: >"$work/log"
env SERVER_HOST=127.0.0.1 SERVER_PORT=0 SAMPLE_INTERVAL=500ms OLLAMA_URL="http://$hello/ollama/3" \
    ORCH_URL="$gateway" CAPABILITY_NAME=agent-net-demo HOSTNAME=127.0.0.1 \
    NVML_LIB="$work/libnvidia-ml.so.1" FAKE_NVML="$work/gpus" "$built/agent-net" serve 2>"$work/log" &
pids="$pids $!"
worker=http://$(await "$work/log" 's/.*listening on http:\/\///p')
tries=50
until curl -s -m 2 "$gateway/registered" | grep -q '"url":"http'; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "it did not register: $(cat "$work/log")"
    sleep 0.2
done
curl -sS -m 5 "$gateway/registered"

# verdict WORD: waits for it, and prints the line of scripts/poll.sh
verdict() {
    tries=50
    until line=$(scripts/poll.sh --once "$worker" || :) && [ "$(echo "$line" | cut -d ' ' -f 2)" = "$1" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "the verdict is not $1: $line"
        sleep 0.2
    done
    printf '%s\n' "$line"
}

printf '\n'
verdict ok
step "three jobs through the gateway (scripts/job.sh)"
scripts/job.sh --gateway "$gateway" --capability agent-net-demo --jobs 3 --delay 1
step "a GPU overheats"
gpus 'gpus=2\ngpu1.temperature=93'
verdict degraded
step "a GPU falls off the bus"
gpus 'gpus=2\ngpu1.handle=15'
verdict unhealthy
step "it returns"
gpus 'gpus=2'
verdict ok
if ! $once; then
    printf '\nStatus page: %s/\n' "$worker"
    printf 'Press Ctrl-C to stop.\n'
    while :; do
        sleep 1 &
        wait $!
    done
fi
