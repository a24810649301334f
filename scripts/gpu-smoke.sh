#!/bin/sh
# Compares every reading of the worker with nvidia-smi on a machine with an NVIDIA GPU, and shows how long each NVML
# call took.
#
# Usage: scripts/gpu-smoke.sh [PROGRAM]
#   PROGRAM  an agent-net with agent-net-nvml in the same directory; by default both are built with cargo
#
# Starts its own worker on a free port of 127.0.0.1 and stops it at the end. Readings that fluctuate may differ, and
# each line shows by how much.
#
# Exit codes: 0 all readings match, 1 a reading differs, 2 there is nothing to compare, 64 usage
set -eu

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

fail() {
    printf 'gpu-smoke: %s\n' "$*" >&2
    exit 2
}

case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
-*)
    printf 'gpu-smoke: unknown argument: %s (see --help)\n' "$1" >&2
    exit 64
    ;;
esac

program=${1:-}
command -v nvidia-smi >/dev/null 2>&1 || fail "nvidia-smi is missing: there is nothing to compare with"
command -v curl >/dev/null 2>&1 || fail "curl is missing: install the package curl"
if [ -z "$program" ]; then
    unset CDPATH
    cd "$(dirname "$0")/.."
    cargo build --quiet --locked --release --bins
    program=${CARGO_TARGET_DIR:-target}/release/agent-net
fi

work=$(mktemp -d)
worker=
stop() {
    [ -z "$worker" ] || kill "$worker" 2>/dev/null || :
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM

SERVER_HOST=127.0.0.1 SERVER_PORT=0 SAMPLE_INTERVAL=1s "$program" serve 2>"$work/log" &
worker=$!

tries=150
# Waits for the next attempt, up to 30 s in total.
pause() {
    tries=$((tries - 1))
    if [ "$tries" -le 0 ] || ! kill -0 "$worker" 2>/dev/null; then
        fail "no reading of a GPU: $(cat "$work/log" "$work/ours" 2>/dev/null)"
    fi
    sleep 0.2
}

listening() {
    url=$(sed -n 's/.*listening on \(http:.*\)/\1/p' "$work/log" | head -n 1)
    [ -n "$url" ]
}

sampled() {
    curl -sS -m 5 "$url/gpu?format=text" >"$work/ours" 2>/dev/null && grep -q '^gpu0_index=' "$work/ours"
}

until listening; do pause; done
until sampled; do pause; done

# Our name, nvidia-smi's, and the allowed difference; "same": the text must be equal.
cat >"$work/fields" <<'FIELDS'
uuid uuid same
name name same
pci_bus_id pci.bus_id same
vbios_version vbios_version same
compute_capability compute_cap same
vram_total_mb memory.total 1
vram_used_mb memory.used 256
vram_free_mb memory.free 256
vram_reserved_mb memory.reserved 1
temperature_c temperature.gpu 5
memory_temperature_c temperature.memory 5
power_w power.draw 75
power_limit_w enforced.power.limit 0.1
power_limit_default_w power.default_limit 0.1
utilization_percent utilization.gpu 100
memory_utilization_percent utilization.memory 100
graphics_clock_mhz clocks.current.graphics 3000
graphics_clock_max_mhz clocks.max.graphics 0
memory_clock_mhz clocks.current.memory 15000
memory_clock_max_mhz clocks.max.memory 0
performance_state pstate 15
fan_percent fan.speed 20
pcie_generation pcie.link.gen.current 5
pcie_generation_max pcie.link.gen.max 0
pcie_width pcie.link.width.current 15
pcie_width_max pcie.link.width.max 0
ecc_enabled ecc.mode.current same
ecc_uncorrected_volatile ecc.errors.uncorrected.volatile.total 0
ecc_uncorrected_aggregate ecc.errors.uncorrected.aggregate.total 0
persistence_mode persistence_mode same
mig_mode mig.mode.current same
remapped_rows_correctable remapped_rows.correctable 0
remapped_rows_uncorrectable remapped_rows.uncorrectable 0
remapped_rows_pending remapped_rows.pending same
remapped_rows_failed remapped_rows.failure same
spare_rows_max remapped_rows.histogram.max 0
spare_rows_high remapped_rows.histogram.high 0
spare_rows_partial remapped_rows.histogram.partial 0
spare_rows_low remapped_rows.histogram.low 0
spare_rows_none remapped_rows.histogram.none 0
sram_threshold_exceeded ecc.errors.uncorrected.aggregate.sram.thresholdExceeded same
fabric_state fabric.state same
fabric_status fabric.status same
FIELDS

# What nvidia-smi shows in its long form alone: our name, the heading that the line stands below ("-": any), its words.
cat >"$work/lines" <<'LINES'
channel_repair_pending|-|Channel Repair Pending|same
tpc_repair_pending|-|TPC Repair Pending|same
unrepairable_memory|-|Unrepairable Memory|same
memory_power_w|GPU Memory Power Readings|Average Power Draw|75
LINES

# A driver that does not know a field rejects the whole query.
nvidia-smi --help-query-gpu >"$work/known" 2>/dev/null || fail "nvidia-smi failed: $(cat "$work/known")"
: >"$work/asked"
query=index
while read -r ours theirs allowed; do
    if grep -q "\"$theirs\"" "$work/known"; then
        query=$query,$theirs
        echo "$ours $theirs $allowed" >>"$work/asked"
    fi
done <"$work/fields"
nvidia-smi --query-gpu="$query" --format=csv,noheader,nounits >"$work/theirs" ||
    fail "nvidia-smi failed: $(cat "$work/theirs")"
[ -s "$work/theirs" ] || fail "nvidia-smi lists no GPU"

# The long form as further fields of each GPU, in the same order.
nvidia-smi -q >"$work/long" 2>/dev/null || fail "nvidia-smi -q failed: $(cat "$work/long")"
awk -F '|' '{ words = $3; gsub(/ /, "_", words); print $1, words, $4 }' "$work/lines" >>"$work/asked"
awk -v gpus="$(wc -l <"$work/theirs")" '
    FNR == NR { n++; split($0, part, "|"); below[n] = part[2]; words[n] = part[3]; next }
    /^GPU / { gpu++ }
    {
        name = $0
        sub(/ *:.*/, "", name)
        sub(/^ */, "", name)
        sub(/ *$/, "", name)
        value = $0
        if (sub(/^[^:]*: */, "", value) == 0) { heading = name; next }
        sub(/ [A-Za-z()%]*$/, "", value)
        for (i = 1; i <= n; i++)
            if (name == words[i] && (below[i] == "-" || below[i] == heading)) found[gpu, i] = value
    }
    END {
        for (gpu = 1; gpu <= gpus; gpu++) {
            line = ""
            for (i = 1; i <= n; i++) line = line ", " ((gpu, i) in found ? found[gpu, i] : "N/A")
            print substr(line, 2)
        }
    }
' "$work/lines" "$work/long" >"$work/further"
paste -d , "$work/theirs" "$work/further" >"$work/both"
mv "$work/both" "$work/theirs"
sampled || fail "the worker no longer lists a GPU"
curl -sS -m 5 "$url/metrics" >"$work/metrics"

# Our lines without quotes, nvidia-smi's values in our words, one line per field.
awk -v work="$work" '
    function clean(text) {
        if (text ~ /^\047.*\047$/) text = substr(text, 2, length(text) - 2)
        return text
    }
    function number(text) { return text ~ /^-?[0-9]+(\.[0-9]+)?$/ }
    FILENAME == work "/ours" { at = index($0, "="); ours[substr($0, 1, at - 1)] = clean(substr($0, at + 1)); next }
    FILENAME == work "/asked" { n++; split($0, part, " "); mine[n] = part[1]; its[n] = part[2]; allowed[n] = part[3]; next }
    {
        gpus++
        split($0, value, ", ")
        gpu = value[1]
        printf "GPU %s\n  %-28s %-40s %-40s\n", gpu, "", "agent-net", "nvidia-smi"
        for (i = 1; i <= n; i++) {
            theirs = value[i + 1]
            key = "gpu" gpu "_" mine[i]
            have = key in ours ? ours[key] : "-"
            if (theirs ~ /N\/A|Not Supported|Insufficient|Unknown Error/) theirs = "-"
            if (theirs == "Enabled" || theirs == "Yes") theirs = "true"
            if (theirs == "Disabled" || theirs == "No") theirs = "false"
            if (mine[i] ~ /^fabric_/) {
                # Some drivers repeat the name.
                sub(/^(state|status) +/, "", theirs)
                gsub(/ /, "_", theirs)
            }
            # The number of banks without the word.
            if (mine[i] ~ /^spare_rows_/) sub(/ bank.*/, "", theirs)
            if (mine[i] == "performance_state") sub(/^P/, "", theirs)
            # nvidia-smi shows one of several fans.
            if (mine[i] == "fan_percent") sub(/ .*/, "", have)
            if (allowed[i] == "same") good = tolower(have) == tolower(theirs)
            else if (number(have) && number(theirs)) {
                apart = have - theirs
                good = (apart < 0 ? -apart : apart) <= allowed[i] + 0
            } else good = have == theirs
            if (!good) differ++
            note = allowed[i] == "same" || allowed[i] == 0 ? "" : "+-" allowed[i]
            printf "  %-28s %-40s %-40s %s %s\n", mine[i], have, theirs, good ? "ok" : "DIFFERS", note
        }
    }
    END {
        if ((gpus + 0) != (ours["gpu_count"] + 0)) {
            printf "%d GPUs in nvidia-smi, %d usable in agent-net\n", gpus, ours["gpu_count"]
            differ++
        }
        printf "verdict %s %s\n", ours["verdict"], ours["reasons"]
        printf "%d readings differ\n", differ
        exit differ > 0
    }
' "$work/ours" "$work/asked" "$work/theirs" && rc=0 || rc=$?

# MIG instances: number of the GPU, profile and UUID.
nvidia-smi -L 2>/dev/null | awk '
    /^GPU [0-9]+:/ { gpu = $2 + 0 }
    /^ +MIG / { uuid = $NF; sub(/\)$/, "", uuid); print gpu, $2, uuid }
' | sort >"$work/their_mig"
awk -F= '
    $1 ~ /^gpu[0-9]+_mig[0-9]+_(profile|uuid)$/ {
        split($1, part, "_")
        gpu[part[1] part[2]] = substr(part[1], 4)
        value = $2
        gsub(/\047/, "", value)
        known[part[1] part[2], part[3]] = value
    }
    END { for (key in gpu) print gpu[key], known[key, "profile"], known[key, "uuid"] }
' "$work/ours" | sort >"$work/our_mig"
if cmp -s "$work/our_mig" "$work/their_mig"; then
    echo "$(awk 'END { print NR }' "$work/our_mig") MIG instances are the same"
else
    printf 'MIG instances DIFFER\n  agent-net:\n'
    cat "$work/our_mig"
    printf '  nvidia-smi:\n'
    cat "$work/their_mig"
    rc=1
fi

echo "not compared, because they are means since the last sample:"
awk -F = '
    /^gpu[0-9]+_([a-z]+_activity_percent|pcie_[a-z]+_mib_per_second|processes[0-9]+_(pid|name|utilization_percent))=/ {
        print "  " $1, $2
    }
' "$work/ours"
echo "microseconds of each call in the last sample, summed over the GPUs:"
sed -n 's/^agent_net_collect_call_seconds{call="\([^"]*\)"} \(.*\)/\1 \2/p' "$work/metrics" |
    awk '{ printf "  %-28s %.0f\n", $1, $2 * 1e6; all += $2 } END { printf "  %-28s %.0f\n", "all", all * 1e6 }'
[ "$rc" = 0 ]
