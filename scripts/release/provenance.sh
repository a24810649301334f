# Sourced by scripts/release.sh: what the release was made of and by, as JSON.
# shellcheck shell=sh

# shellcheck disable=SC2154 # set by the script that sources this
: "$advisories" "$commit" "${index_digest=}" "$version" "$work"

# version_of PROGRAM: the first line of its --version
version_of() {
    json "$("$1" --version | head -n 1)"
}

write_provenance() {
    printf '{\n  "name": "agent-net",\n  "version": %s,\n  "commit": %s,\n' "$(json "$version")" "$(json "$commit")"
    printf '  "source_date_epoch": %s,\n' "$SOURCE_DATE_EPOCH"
    printf '  "command": "scripts/release.sh",\n'
    printf '  "advisories": %s,\n' "$(json "$advisories")"
    printf '  "packed_by": {"tar": %s, "gzip": %s},\n' "$(version_of tar)" "$(version_of gzip)"
    printf '  "index": %s,\n' "$(json "$index_digest")"
    printf '  "images": [\n'
    comma=
    while read -r arch manifest_digest config_digest layer_digest; do
        rootfs=$(rootfs_of "$arch")
        printf '%s    {"platform": "linux/%s",\n' "$comma" "$arch"
        printf '     "manifest": "%s",\n     "config": "%s",\n     "layer": "%s",\n' "$manifest_digest" "$config_digest" "$layer_digest"
        printf '     "programs": {"agent-net": "sha256:%s", "agent-net-nvml": "sha256:%s"},\n' \
            "$(sum_of "$rootfs/agent-net")" "$(sum_of "$rootfs/agent-net-nvml")"
        printf '     "build": %s}' "$(sed 's/^/     /;1s/^ *//' "dist/build-$arch.json")"
        comma=',
'
    done <"$work/images"
    printf '\n  ]\n}\n'
}
