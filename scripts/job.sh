#!/bin/sh
# Sends jobs as a gateway's client does, to one capability or to several in turn, and prints statistics.
#
# Usage: scripts/job.sh [--gateway URL | --worker URL] [--capability NAME[,NAME...]] [--jobs N] [--agent ID]
#                       [--timeout SECONDS] [--delay SECONDS]
#   --gateway     URL of a go-livepeer gateway; default $GATEWAY_URL, or http://127.0.0.1:9935
#   --worker      URL of a worker: the same jobs without gateway, orchestrator and payment
#   --capability  default $CAPABILITY_NAME, or agent-net
#   --jobs        number of jobs; default: until Ctrl-C (statistics are printed either way)
#   --agent       agent_id of the jobs; default job-sh
#   --timeout     seconds that a job may take; default 60
#   --delay       fixed delay between jobs, in seconds; by default it depends on the VRAM of Ollama's models: none above
#                 30,000 MB, 5 s above 1,000 MB, otherwise 15 s
#
# Sends WORKER_TOKEN to a --worker if it is set. Requires curl.
#
# Exit codes: 0 every job succeeded, 1 a job failed, 64 usage
set -eu

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

wrong() {
    printf 'job: %s (see --help)\n' "$*" >&2
    exit 64
}

gateway=${GATEWAY_URL:-http://127.0.0.1:9935} worker='' capabilities=${CAPABILITY_NAME:-agent-net}
jobs='' agent=job-sh timeout=60 delay=''
while [ $# -gt 0 ]; do
    name=${1#--}
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --gateway | --worker | --capability | --jobs | --agent | --timeout | --delay) [ $# -gt 1 ] || wrong "$1 needs a value" ;;
    *) wrong "unknown argument: $1" ;;
    esac
    case $1:$2 in
    --jobs:*[!0-9]* | --timeout:*[!0-9]* | --delay:*[!0-9]* | *:) wrong "$1 '$2': must be a number" ;;
    --gateway:http://* | --gateway:https://* | --worker:http://* | --worker:https://*) ;;
    --gateway:* | --worker:*) wrong "$1 '$2': must be a URL such as http://127.0.0.1:9935" ;;
    # They are put into JSON inside JSON.
    --capability:*[!A-Za-z0-9._,-]* | --agent:*[!A-Za-z0-9._-]*) wrong "$1 '$2': use letters, digits, '.', '_' and '-'" ;;
    esac
    [ "$name" != capability ] || name=capabilities
    eval "$name=\$2"
    shift 2
done
command -v curl >/dev/null 2>&1 || {
    printf 'job: curl is missing: install it\n' >&2
    exit 1
}

work=$(mktemp -d)
: >"$work/results"

# One line per capability, and the reasons of failures.
summary() {
    trap - INT TERM
    awk -v now="$(date +%s)" -v began="$began" '
        {
            if (!($1 in sent)) order[++names] = $1
            sent[$1]++
            if ($2 != "ok") { failed[$1]++; why[$2]++; next }
            good[$1]++
            total[$1] += $3
            if (!($1 in low) || $3 < low[$1]) low[$1] = $3
            if ($3 > high[$1]) high[$1] = $3
        }
        END {
            for (i = 1; i <= names; i++) {
                n = order[i]
                printf "%s: %d jobs, %d answered, %d failed", n, sent[n], good[n], failed[n]
                if (good[n]) printf "; %.0f ms on average, %.0f to %.0f ms", total[n] / good[n] * 1000, low[n] * 1000, high[n] * 1000
                printf "\n"
            }
            for (w in why) printf "  %d× %s\n", why[w], w
            printf "%d s in all\n", now - began
        }' "$work/results"
    rc=0
    ! grep -qv ' ok ' "$work/results" || rc=1
    [ -s "$work/results" ] || rc=1
    rm -rf "$work"
    exit "$rc"
}

began=$(date +%s)
trap summary INT TERM

# send CAPABILITY: one job; its result is a line of $work/results, its response $work/body
send() {
    job="{\"agent_id\":\"$agent\"}"
    set -- "$1" "$gateway/process/request/agent-net"
    [ -z "$worker" ] || set -- "$1" "${worker%/}/gpu-check"
    header="{\"request\":\"{\\\"run\\\":\\\"agent-net\\\"}\",\"parameters\":\"{}\",\"capability\":\"$1\",\"timeout_seconds\":$timeout}"
    {
        if [ -z "$worker" ]; then
            printf 'header = "Livepeer: %s"\n' "$(printf %s "$header" | base64 | tr -d '\n')"
        elif [ -n "${WORKER_TOKEN:-}" ]; then
            printf 'header = "Authorization: Bearer %s"\n' "$WORKER_TOKEN"
        fi
    } >"$work/headers"
    : >"$work/body"
    found=$(curl -sS -m "$((timeout + 10))" -K "$work/headers" -o "$work/body" -w '%{http_code} %{time_total}' \
        -H 'Content-Type: application/json' -d "$job" "$2" 2>"$work/error") || found="000 0"
    status=${found% *} seconds=${found#* }
    # A gateway returns 200 without a body when it has lost the job.
    if [ "$status" = 000 ]; then
        result=no_answer
    elif [ "$status" != 200 ]; then
        result=status_$status
    elif [ ! -s "$work/body" ]; then
        result=empty_200
    elif grep -q '"status":"success"' "$work/body"; then
        result=ok
    else
        result=strange_200
    fi
    printf '%s %s %s\n' "$1" "$result" "$seconds" >>"$work/results"
    text=$(head -c 300 "$work/body" | tr -d '\r' | tr '\n' ' ')
    [ "$result" != no_answer ] || text=$(cat "$work/error")
    if [ "$result" = ok ]; then
        verdict=$(sed -n 's/.*"health":{"verdict":"\([a-z]*\)".*/\1/p' "$work/body")
        model=$(sed -n 's/.*"model_name":"\([^"]*\)".*/\1/p' "$work/body")
        text="verdict ${verdict:-unknown}, ${model:-no model} loaded, $(vram) MB of VRAM"
    fi
    printf '%s %s %s in %s s: %s\n' "$(date -u +%H:%M:%S)" "$1" "$result" "$seconds" "$text"
}

# MB of VRAM of Ollama's models, from the last response
vram() {
    mb=$(sed -n 's/.*"vram_usage_mb":\([0-9]*\).*/\1/p' "$work/body")
    printf %s "${mb:-0}"
}

pause() {
    if [ -n "$delay" ]; then
        printf %s "$delay"
    elif [ "$(vram)" -gt 30000 ]; then
        printf 0
    elif [ "$(vram)" -gt 1000 ]; then
        printf 5
    else
        printf 15
    fi
}

sent=0
while :; do
    for capability in $(printf %s "$capabilities" | tr , ' '); do
        [ -z "$jobs" ] || [ "$sent" -lt "$jobs" ] || summary
        [ "$sent" = 0 ] || {
            sleep "$(pause)" &
            wait $!
        }
        send "$capability"
        sent=$((sent + 1))
    done
done
