#!/bin/sh
# Measures a fleet on this machine: many workers with simulated GPUs, and one Prometheus that scrapes all of them. Then
# computes what 10,000 machines need.
#
# Usage: scripts/fleet.sh [--workers N] [--gpus N] [--scrapes N] [--interval SECONDS]
#   --workers   how many workers; default 200
#   --gpus      of each worker; default 2
#   --scrapes   of each worker before it is measured; default 8
#   --interval  between two scrapes of a worker; default 15
#
# Requires prometheus, promtool and curl. Uses the programs of dist/rootfs (scripts/build-static.sh), or else those of
# this machine's release build, with one simulated Ollama for all. Everything stays on 127.0.0.1. It takes about three and
# a half minutes. CPU time and memory of a worker are those of server and helper. A page that processes share counts in
# each as RSS, and divided among them as PSS.
#
# Exit codes: 0 measured, 1 failed or a tool is missing, 64 usage
set -eu

unset CDPATH
cd "$(dirname "$0")/.."
# shellcheck source=tests/bench/common.sh
. tests/bench/common.sh

workers=200 gpus=2 scrapes=8 interval=15
while [ $# -gt 0 ]; do
    case $1 in
    --workers) workers=$(number "$@") ;;
    --gpus) gpus=$(number "$@") ;;
    --scrapes) scrapes=$(number "$@") ;;
    --interval) interval=$(number "$@") ;;
    *) other "$1" ;;
    esac
    shift 2
done
for positive in "$workers" "$scrapes" "$interval"; do
    [ "$positive" -gt 0 ] || misused "workers, scrapes and interval must be at least 1"
done

for tool in prometheus promtool curl; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: install the packages prometheus and curl"
done
programs=dist/rootfs
if [ ! -x "$programs/agent-net" ]; then
    cargo build --quiet --locked --release --bins
    programs=${CARGO_TARGET_DIR:-target}/release
fi

begin
# Each worker keeps a connection.
start_hello $((workers + 8))
printf 'gpus=%s\n' "$gpus" >"$work/gpus"

# ---- the fleet ----

i=0
: >"$work/pids"
while [ "$i" -lt "$workers" ]; do
    : >"$work/log-$i"
    env -i PATH="$PATH" SERVER_HOST=127.0.0.1 SERVER_PORT=0 OLLAMA_URL="http://$hello/ollama/3" \
        NVML_LIB="$work/libnvidia-ml.so.1" FAKE_NVML="$work/gpus" "$programs/agent-net" serve 2>"$work/log-$i" &
    pids="$pids $!"
    echo "$!" >>"$work/pids"
    i=$((i + 1))
done
i=0
while [ "$i" -lt "$workers" ]; do
    printf '{"targets": ["%s"], "labels": {"site": "site-%d", "owner": "owner-%d"}}\n' \
        "$(await "$work/log-$i" 's/.*listening on http:\/\///p')" $((i % 20)) $((i % 5))
    i=$((i + 1))
done >"$work/targets"
mkdir "$work/targets.d"
first=$(sed -n '1s/.*\["\(.*\)"\].*/\1/p' "$work/targets")

# The shipped configuration, without the Alertmanager.
sed -e "s,/etc/prometheus/targets,$work/targets.d,; s,/etc/prometheus/,$PWD/compose/monitoring/,; s,interval: 15s,interval: ${interval}s," \
    -e '/^alerting:/,/^$/d' compose/monitoring/fleet.prometheus.yaml >"$work/prometheus.yaml"
[ "$interval" -ge 10 ] || sed -i "s,scrape_timeout: .*,scrape_timeout: ${interval}s," "$work/prometheus.yaml"
: >"$work/prometheus"
prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/data" --web.listen-address=127.0.0.1:0 \
    2>"$work/prometheus" &
prometheus=$!
pids="$pids $prometheus"
address=$(await "$work/prometheus" 's/.*msg="Listening on".*address=\([^ ]*\).*/\1/p')
resident() {
    awk '$1 == "VmRSS:" { print $2 }' "/proc/$prometheus/status"
}
sleep 5
base=$(resident)
sed 's/^/- /' "$work/targets" >"$work/all.yaml"
mv "$work/all.yaml" "$work/targets.d/all.yaml"

# ---- what is measured ----

# query EXPRESSION: its one value, or nothing
query() {
    promtool query instant "http://$address" "$1" 2>/dev/null | sed -n 's/.*=> \([^ ]*\) @.*/\1/p' | head -n 1
}

# processes: the pids of workers and their helpers
processes() {
    while read -r pid; do
        echo "$pid"
        child_of "$pid"
    done <"$work/pids"
}

# cpu PID...: hundredths of a second
cpu() {
    for pid in "$@"; do
        sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 12,13 | tr ' ' '\n'
    done | awk '{ sum += $1 } END { print sum + 0 }'
}

# Bounded: three times the time of the scrapes, and a minute.
end=$(($(date +%s) + scrapes * interval * 3 + 60))
until [ "$(query "min(count_over_time(up{job=\"agent-net\"}[1h]) * up) >= $scrapes and count(up{job=\"agent-net\"}) == $workers")" ]; do
    [ "$(date +%s)" -lt "$end" ] || fail "not all workers were scraped $scrapes times: $(query 'sum(up)') of $workers respond"
    sleep 1
done

processes >"$work/processes"
[ "$(wc -l <"$work/processes")" -eq $((workers * 2)) ] || fail "a worker has no helper"
appended() {
    curl -sS -m 5 "http://$address/metrics" |
        awk '/^prometheus_tsdb_head_samples_appended_total/ { sum += $2 } END { printf "%d", sum }'
}

# shellcheck disable=SC2046 # a list of words
before=$(cpu $(cat "$work/processes"))
prometheus_before=$(cpu "$prometheus")
appended_before=$(appended)
start=$(date +%s)
sleep $((interval * 4))
# shellcheck disable=SC2046 # a list of words
spent=$(($(cpu $(cat "$work/processes")) - before))
prometheus_spent=$(($(cpu "$prometheus") - prometheus_before))
ingested=$(($(appended) - appended_before))
seconds=$(($(date +%s) - start))

# RSS and PSS in KiB
while read -r pid; do
    cat "/proc/$pid/smaps_rollup"
done <"$work/processes" | awk '$1 == "Rss:" { rss += $2 } $1 == "Pss:" { pss += $2 } END { print rss, pss }' >"$work/memory"
read -r rss pss <"$work/memory"
prometheus_rss=$(resident)
bytes=$(curl -sS -m 5 "http://$first/metrics" | wc -c)
compressed=$(curl -sS -m 5 -H 'Accept-Encoding: gzip' "http://$first/metrics" | wc -c)
window="$((scrapes * interval))s"
p50=$(query "quantile(0.5, quantile_over_time(0.5, scrape_duration_seconds{job=\"agent-net\"}[$window]))")
p99=$(query "quantile(0.99, quantile_over_time(0.99, scrape_duration_seconds{job=\"agent-net\"}[$window]))")
most=$(query "max(max_over_time(scrape_duration_seconds{job=\"agent-net\"}[$window]))")
samples=$(query 'avg(scrape_samples_scraped{job="agent-net"})')
series=$(curl -sS -m 5 "http://$address/metrics" | sed -n 's/^prometheus_tsdb_head_series //p')
kill "$prometheus"
wait "$prometheus" || :

# ---- what is printed ----

awk -v workers="$workers" -v gpus="$gpus" -v rss="$rss" -v pss="$pss" -v prss="$prometheus_rss" -v base="$base" -v bytes="$bytes" \
    -v compressed="$compressed" -v p50="$p50" -v p99="$p99" -v most="$most" -v samples="$samples" -v series="$series" \
    -v ingested="$ingested" -v spent="$spent" -v pspent="$prometheus_spent" -v seconds="$seconds" -v interval="$interval" '
    BEGIN {
        printf "measured: %d workers with %d GPUs each, scraped every %d s\n", workers, gpus, interval
        printf "memory of all workers, MiB: RSS %.0f, PSS %.0f\n", rss / 1024, pss / 1024
        printf "memory of a worker with its helper, MiB: RSS %.2f, PSS %.2f\n", rss / 1024 / workers, pss / 1024 / workers
        printf "CPU of all workers, %% of a core: %.1f (a worker: %.3f)\n", spent / seconds, spent / seconds / workers
        printf "duration of a scrape, ms: p50 %.1f, p99 %.1f, max %.1f\n", p50 * 1000, p99 * 1000, most * 1000
        printf "a scrape: %.0f samples, %d bytes, %d with gzip\n", samples, bytes, compressed
        each = (prss - base) / series
        printf "Prometheus: %d series, %.0f MiB (%.0f without targets: %.2f KiB a series), %.0f samples/s, %.1f %% of a core\n",
            series, prss / 1024, base / 1024, each, ingested / seconds, pspent / seconds
        machines = 10000
        total = series / workers * machines
        rate = total / interval
        printf "\ncomputed for %d machines, scraped every %d s:\n", machines, interval
        printf "series = machines x series of a worker = %d x %.0f = %.2f million\n", machines, series / workers, total / 1e6
        printf "samples/s = series / interval = %.0f\n", rate
        printf "memory = series x %.2f KiB = %.1f GiB\n", each, total * each / 1048576
        printf "disk for 30 days = samples/s x 1.5 to 2 bytes x 2,592,000 s = %.0f to %.0f GB\n", rate * 1.5 * 2.592e6 / 1e9,
            rate * 2 * 2.592e6 / 1e9
        printf "bandwidth = machines x bytes of a scrape / interval = %.1f Mbit/s, with gzip %.1f Mbit/s\n",
            machines * bytes / interval * 8 / 1e6, machines * compressed / interval * 8 / 1e6
        printf "CPU of Prometheus = that of %d workers x %d / %d = %.1f cores\n", workers, machines, workers,
            pspent / seconds / 100 * machines / workers
    }'
