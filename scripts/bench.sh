#!/bin/sh
# Measures POST /gpu-check and other servers in one run, so that noise of the machine affects all of them: rouille alone
# with a fixed reply, nginx with a fixed reply, an earlier build of the worker, and any other server.
#
# Usage: scripts/bench.sh [--seconds N] [--rounds N] [--before FOLDER] [--peer URL]
#   --seconds  of each measurement; default 2
#   --rounds   of all of them, in turn; medians are printed; default 3
#   --before   an earlier root file system, with agent-net and agent-net-nvml
#   --peer     another server that accepts the same job, such as http://127.0.0.1:8000/gpu-check
#
# Prints ratios first, then tables for src/README.md. Requires wrk and curl. nginx is measured if it is installed. Uses
# the programs of dist/rootfs (scripts/build-static.sh), or else those of this machine's release build, with a simulated
# GPU and Ollama. Everything stays on 127.0.0.1. CPU time and memory are those of server and helper.
#
# Exit codes: 0 measured, 1 failed or a tool is missing, 64 usage
set -eu

unset CDPATH
cd "$(dirname "$0")/.."
# shellcheck source=tests/bench/common.sh
. tests/bench/common.sh

seconds=2 rounds=3 peer='' before_programs=''
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=$(number "$@") ;;
    --rounds) rounds=$(number "$@") ;;
    --before)
        [ -x "${2:-}/agent-net" ] || misused '--before needs a folder with agent-net and agent-net-nvml'
        before_programs=$2
        ;;
    --peer)
        case ${2:-} in
        http://*/*) peer=$2 ;;
        *) misused '--peer needs a URL with a path, such as http://127.0.0.1:8000/gpu-check' ;;
        esac
        ;;
    *) other "$1" ;;
    esac
    shift 2
done

PATH=$PATH:/usr/sbin:/sbin
for tool in wrk curl; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: install the package $tool"
done
cargo build --quiet --locked --release --bins --example first
built=${CARGO_TARGET_DIR:-target}/release
programs=$built
[ ! -x dist/rootfs/agent-net ] || programs=dist/rootfs

begin
cat >"$work/job.lua" <<'LUA'
wrk.method = "POST"
wrk.body = '{"agent_id":"bench"}'
function done(summary, latency, requests)
    local wrong = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
        + summary.errors.timeout
    print(string.format("= %d %.0f %.3f %.3f %.3f %d", summary.requests, summary.requests / summary.duration * 1e6,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000, wrong))
end
LUA

# ---- the servers ----

# As many threads as CAPABILITY_CAPACITY, and some for other requests.
start_hello 14
rouille=$hello

# worker GPUS MODELS [FOLDER]: starts it; sets pid and address
worker() {
    log=$work/worker-$1-$2${3:+-before}
    printf 'gpus=%s\n' "$1" >"$log.gpus"
    : >"$log"
    env SERVER_HOST=127.0.0.1 SERVER_PORT=0 SAMPLE_INTERVAL=1s OLLAMA_URL="http://$rouille/ollama/$2" \
        NVML_LIB="$work/libnvidia-ml.so.1" FAKE_NVML="$log.gpus" "${3:-$programs}/agent-net" serve 2>"$log" &
    pid=$!
    pids="$pids $pid"
    address=$(await "$log" 's/.*listening on http:\/\///p')
}

worker 1 1
worker_pid=$pid worker=$address
servers="agent-net rouille"
if [ -n "$before_programs" ]; then
    servers="agent-net before rouille"
    worker 1 1 "$before_programs"
    before_pid=$pid before_address=$address
fi
if command -v nginx >/dev/null 2>&1; then
    servers="$servers nginx"
    nginx=127.0.0.1:$((${worker#*:} % 20000 + 10000))
    cat >"$work/nginx.conf" <<CONF
daemon off; master_process off; pid $work/pid; error_log $work/error.log;
events { worker_connections 2048; }
http {
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path $work/a; proxy_temp_path $work/b; fastcgi_temp_path $work/c; uwsgi_temp_path $work/d;
    scgi_temp_path $work/e;
    server { listen $nginx backlog=1024; location / { default_type application/json; return 200 '{"status":"success"}'; } }
}
CONF
    nginx -e "$work/start.log" -p "$work" -c "$work/nginx.conf" &
    pids="$pids $!"
fi
[ -z "$peer" ] || servers="$servers peer"

url_of() {
    case $1 in
    agent-net) echo "http://$worker/gpu-check" ;;
    before) echo "http://$before_address/gpu-check" ;;
    rouille) echo "http://$rouille/" ;;
    nginx) echo "http://$nginx/" ;;
    peer) echo "$peer" ;;
    esac
}

# pid_of SERVER: of those whose CPU time and memory are compared
pid_of() {
    case $1 in
    agent-net) echo "$worker_pid" ;;
    before) echo "$before_pid" ;;
    esac
}

# ---- what is measured ----

# cpu PID: hundredths of a second, with its child's
cpu() {
    for one in "$1" $(child_of "$1"); do
        sed 's/.*) //' "/proc/$one/stat" | cut -d ' ' -f 12,13 | tr ' ' '\n'
    done | awk '{ sum += $1 } END { print sum + 0 }'
}

# resident PID: MiB, with its child's
resident() {
    for one in "$1" $(child_of "$1"); do
        cat "/proc/$one/status"
    done | awk '$1 == "VmRSS:" { sum += $2 } END { printf "%.1f", sum / 1024 }'
}

# jobs URL CONNECTIONS KEPT: requests, requests/s, p50, p99, p99.9 in ms, wrong answers
jobs() {
    threads=2
    [ "$2" -gt 1 ] || threads=1
    header="X-Bench: 1"
    [ "$3" = kept ] || header="Connection: close"
    wrk -t "$threads" -c "$2" -d "${seconds}s" --timeout 10s -s "$work/job.lua" -H "$header" "$1" | sed -n 's/^= //p'
}

sleep 2
before=$(cpu "$worker_pid")
sleep 20
idle=$(($(cpu "$worker_pid") - before))
i=0
: >"$work/all"
while [ "$i" -lt "$rounds" ]; do
    for kept in kept new; do
        for connections in 1 10 100 1000; do
            for server in $servers; do
                before=0 after=0
                [ "$server" != rouille ] || "$hello_program" warm "$rouille" "$connections"
                its_pid=$(pid_of "$server")
                [ -z "$its_pid" ] || before=$(cpu "$its_pid")
                found=$(jobs "$(url_of "$server")" "$connections" "$kept")
                [ -z "$its_pid" ] || after=$(cpu "$its_pid")
                echo "$server $kept $connections $found $((after - before))" >>"$work/all"
                [ -z "$its_pid" ] || echo "$server $kept $connections $(resident "$its_pid")" >>"$work/memory"
            done
            # Before it has had a thousand connections.
            [ -n "${loaded:-}" ] || [ "$connections" != 10 ] || loaded=$(resident "$worker_pid")
        done
    done
    i=$((i + 1))
done

# The cost of a job by GPUs and models: all sizes in turn, so that noise of the machine affects all of them.
kill "$worker_pid"
[ -z "$before_programs" ] || kill "$before_pid"
: >"$work/sizes"
for size in '1 1' '4 1' '16 1' '1 50' '1 500' '16 500'; do
    # shellcheck disable=SC2086 # two numbers
    worker $size
    echo "$size $pid $address" >>"$work/sizes"
done
sleep 2
: >"$work/costs"
i=0
while [ "$i" -lt "$rounds" ]; do
    while read -r gpus models pid address; do
        before=$(cpu "$pid")
        found=$(jobs "http://$address/gpu-check" 10 kept)
        echo "$gpus $models $found $(($(cpu "$pid") - before))" >>"$work/costs"
    done <"$work/sizes"
    i=$((i + 1))
done
# GPUs, models, CPU time of a job (the least of all rounds) in microseconds, jobs/s, bytes, CPU time of a sample, MiB
: >"$work/many"
while read -r gpus models pid address; do
    cost=$(awk -v gpus="$gpus" -v models="$models" '$1 == gpus && $2 == models { printf "%.1f %d\n", $9 * 10000 / $3, $4 }' \
        "$work/costs" | sort -n | head -n 1)
    bytes=$(curl -sS -m 5 -d '{"agent_id":"bench"}' "http://$address/gpu-check" | wc -c)
    before=$(cpu "$pid")
    sleep 10
    echo "$gpus $models $cost $bytes $(($(cpu "$pid") - before)) $(resident "$pid")" >>"$work/many"
done <"$work/sizes"

port=$((${worker#*:} % 20000 + 10001))
env SERVER_HOST=127.0.0.1 SERVER_PORT="$port" OLLAMA_URL="http://$rouille/ollama/1" NVML_LIB="$work/libnvidia-ml.so.1" \
    FAKE_NVML="$work/worker-1-1.gpus" "$built/examples/first" "$port" 20 "$programs/agent-net" serve | sort -n >"$work/first"

# ---- what is printed ----

sort "$work/all" | awk -v rounds="$rounds" '
    { key = $1 " " $2 " " $3; n[key]++; for (i = 4; i <= 10; i++) value[key, i, n[key]] = $i }
    function median(key, field,   i, j, t, list) {
        for (i = 1; i <= n[key]; i++) list[i] = value[key, field, i] + 0
        for (i = 1; i <= n[key]; i++) for (j = i + 1; j <= n[key]; j++) if (list[j] < list[i]) { t = list[i]; list[i] = list[j]; list[j] = t }
        return list[int((n[key] + 1) / 2)]
    }
    function ratio(other,   k) { k = " kept 10"; return median(other k, 5) > 0 ? median("agent-net" k, 5) / median(other k, 5) : 0 }
    END {
        printf "requests/s at 10 kept connections: agent-net/rouille %.2f", ratio("rouille")
        if (("nginx kept 10") in n) printf ", agent-net/nginx %.2f", ratio("nginx")
        if (("before kept 10") in n) printf ", agent-net/before %.2f; p99 %.2f of before", ratio("before"), median("agent-net kept 10", 7) / median("before kept 10", 7)
        if (("peer kept 10") in n) printf ", agent-net/peer %.1f; p99 %.3f of the peer", ratio("peer"), median("agent-net kept 10", 7) / median("peer kept 10", 7)
        spent = median("agent-net kept 10", 10) / median("agent-net kept 10", 4)
        printf "\nCPU seconds of a million jobs: %.0f", spent * 10000
        if (("before kept 10") in n) printf ", before %.0f", median("before kept 10", 10) / median("before kept 10", 4) * 10000
        printf "\n1,000 kept connections: agent-net %d wrong answers", median("agent-net kept 1000", 9)
        if (("before kept 1000") in n) printf ", before %d", median("before kept 1000", 9)
        printf "\n\n"
        print "| server | connections | requests/s | p50 ms | p99 ms | p99.9 ms | wrong |"
        print "|---|---|---|---|---|---|---|"
        split("1 10 100 1000", sizes, " "); split("kept new", kinds, " "); split("agent-net before rouille nginx peer", names, " ")
        for (k = 1; k <= 2; k++) for (s = 1; s <= 4; s++) for (m = 1; m <= 5; m++) {
            key = names[m] " " kinds[k] " " sizes[s]
            if (key in n) printf "| %s | %s, %s | %.0f | %.2f | %.2f | %.2f | %d |\n", names[m], sizes[s], kinds[k], median(key, 5), median(key, 6), median(key, 7), median(key, 8), median(key, 9)
        }
    }'
printf '\n| GPUs | models | CPU µs a job | jobs/s | bytes an answer | CPU ms a sample | MiB resident |\n|---|---|---|---|---|---|---|\n'
awk '{ printf "| %d | %d | %s | %d | %d | %.1f | %s |\n", $1, $2, $3, $4, $5, $6, $7; cost[$1 " " $2] = $3 }
    END { printf "\na job with 500 models costs %.2f times one with 1\n", cost["1 500"] / cost["1 1"] }' "$work/many"
printf 'MiB resident, server and helper: %s at 10 kept connections\n' "$loaded"
awk '$2 == "kept" && $3 == 1000 { if ($4 > most[$1]) most[$1] = $4 }
    END { for (one in most) printf "MiB resident, server and helper, at 1,000 kept connections: %s %.1f\n", one, most[one] }' \
    "$work/memory" | sort
printf 'idle, a sample a second: %s %% of a core\n' "$(awk -v ticks="$idle" 'BEGIN { printf "%.2f", ticks / 20 }')"
printf 'start to first answer, ms: %s (median of 20), %s at most\n' "$(sed -n 10p "$work/first")" "$(tail -n 1 "$work/first")"
printf 'bytes: server %s, helper %s' "$(wc -c <"$programs/agent-net")" "$(wc -c <"$programs/agent-net-nvml")"
[ "$programs" = "$built" ] || printf ', image %s' "$(du -sb dist/rootfs | cut -f 1)"
printf '\n'
