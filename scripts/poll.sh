#!/bin/sh
# Prints the state of a worker's GPUs and models, one line at a time.
#
# Usage: scripts/poll.sh [--once] [--interval SECONDS] [--csv] [URL]
#   --once      print one line and exit with the verdict
#   --interval  seconds between lines; default 5
#   --csv       comma-separated, with a header line
#   URL         of the worker; default http://127.0.0.1:9876
#
# Sends WORKER_TOKEN if it is set. Requires curl or wget.
#
# Exit codes: of the last verdict, also after Ctrl-C: 0 ok, 1 degraded, 2 unhealthy, 3 unknown or no response; 64 usage
set -eu

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

wrong() {
    printf 'poll: %s (see --help)\n' "$*" >&2
    exit 64
}

once=false interval=5 csv=false url=http://127.0.0.1:9876
while [ $# -gt 0 ]; do
    case $1 in
    --once) once=true ;;
    --csv) csv=true ;;
    --interval)
        interval=${2:-}
        case $interval in
        '' | *[!0-9]* | 0) wrong "--interval needs a number of seconds" ;;
        esac
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    http://* | https://*) url=${1%/} ;;
    *) wrong "unknown argument: $1" ;;
    esac
    shift
done

# The token is passed on stdin if possible, since every user of this machine can read arguments.
fetch() {
    if command -v curl >/dev/null 2>&1; then
        printf '%s' "${WORKER_TOKEN:+header = \"Authorization: Bearer $WORKER_TOKEN\"}" |
            curl -sS -m 10 -K - "$url/gpu?format=text"
    elif command -v wget >/dev/null 2>&1; then
        wget -q -T 10 -O - ${WORKER_TOKEN:+--header "Authorization: Bearer $WORKER_TOKEN"} "$url/gpu?format=text"
    else
        printf 'poll: curl or wget is missing: install one of them\n' >&2
        return 1
    fi
}

# Joins the worker's key=value lines into one. The exit status is that of the verdict.
line() {
    awk -v csv="$1" -v now="$(date -u +%Y-%m-%dT%H:%M:%SZ)" -v quote="'" '
        {
            at = index($0, "=")
            key = substr($0, 1, at - 1)
            text = substr($0, at + 1)
            # Quoted for a shell: a quote inside is four characters.
            if (substr(text, 1, 1) == quote) {
                text = substr(text, 2, length(text) - 2)
                gsub(quote "\\\\" quote quote, quote, text)
            }
            value[key] = text
            if (at == 0 && NR == 1) error = $0
        }
        # The readings of all GPUs, separated by slashes.
        function each(name,   i, all, one) {
            for (i = 0; i < 64 && ("gpu" i "_index") in value; i++) {
                one = ("gpu" i "_" name) in value ? value["gpu" i "_" name] : "-"
                all = i ? all "/" one : one
            }
            return all == "" ? "-" : all
        }
        function field(text) {
            if (text ~ /[",]/) {
                gsub(/"/, "\"\"", text)
                text = "\"" text "\""
            }
            return text
        }
        END {
            verdict = ("verdict" in value) ? value["verdict"] : "unknown"
            reasons = ("verdict" in value) ? value["reasons"] : (error == "" ? "no response" : error)
            if (csv == "true") {
                print now "," verdict "," value["gpu_count"] "," field(each("temperature_c")) "," field(each("vram_used_mb")) "," \
                    field(each("power_w")) "," field(each("utilization_percent")) "," value["total_models"] "," \
                    field(value["model_name"]) "," value["vram_usage_mb"] "," field(reasons)
            } else {
                print now " " verdict " gpus=" value["gpu_count"] " temperature_c=" each("temperature_c") " vram_used_mb=" \
                    each("vram_used_mb") " power_w=" each("power_w") " utilization_percent=" each("utilization_percent") \
                    " models=" value["total_models"] " model=" value["model_name"] (reasons == "" ? "" : " reasons=" reasons)
            }
            exit verdict == "ok" ? 0 : verdict == "degraded" ? 1 : verdict == "unhealthy" ? 2 : 3
        }'
}

rc=3
trap 'exit "$rc"' INT TERM
! $csv || printf 'time,verdict,gpu_count,temperature_c,vram_used_mb,power_w,utilization_percent,total_models,model_name,vram_usage_mb,reasons\n'
while :; do
    rc=0
    { fetch || :; } | line "$csv" || rc=$?
    ! $once || exit "$rc"
    sleep "$interval" &
    wait $!
done
