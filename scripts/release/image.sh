# Sourced by scripts/release.sh: the images, as OCI image layouts made by tar and gzip alone.
# tests/it/release_images.rs compares their settings with those of scratch.Dockerfile.
# shellcheck shell=sh

# shellcheck disable=SC2154 # set by the script that sources this
: "$commit" "$created" "$new" "$version" "$work"

description="GPU health worker for Livepeer BYOC: reports whether the GPUs next to Ollama are present and healthy"

# pack FOLDER [ENTRY...]: a tar archive of it on stdout, or of these entries, the same at any time and for any user
pack() (
    folder=$1
    shift
    if [ "$#" = 0 ]; then
        # Without a leading ./
        # shellcheck disable=SC2046 # names without spaces
        set -- $(ls -A "$folder")
    fi
    tar --create --directory "$folder" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" -- "$@"
)

sum_of() {
    sha256sum "$1" | cut -d ' ' -f 1
}

# put FILE: moves it to the blobs, and sets $digest and $size
put() {
    digest=$(sum_of "$1")
    size=$(wc -c <"$1")
    mkdir -p "$work/layout/blobs/sha256"
    mv "$1" "$work/layout/blobs/sha256/$digest"
    digest=sha256:$digest
}

# descriptor TYPE [MORE]: of the blob that was put last, as JSON; MORE are further members
descriptor() {
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"%s","size":%s%s}' "$1" "$digest" "$size" "${2:-}"
}

# labels: of an image, and annotations of what names it
labels() {
    printf '{"org.opencontainers.image.created":%s,' "$(json "$created")"
    printf '"org.opencontainers.image.description":%s,' "$(json "$description")"
    printf '"org.opencontainers.image.licenses":"MIT",'
    printf '"org.opencontainers.image.revision":%s,' "$(json "$commit")"
    printf '"org.opencontainers.image.title":"agent-net",'
    printf '"org.opencontainers.image.version":%s}' "$(json "$version")"
}

# image_config ARCH DIFF-ID: times are in nanoseconds.
image_config() {
    printf '{"created":%s,"architecture":"%s","os":"linux","config":{' "$(json "$created")" "$1"
    printf '"User":"65532:65532","ExposedPorts":{"9876/tcp":{}},'
    printf '"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",'
    printf '"NVIDIA_VISIBLE_DEVICES=all","NVIDIA_DRIVER_CAPABILITIES=utility"],'
    printf '"Entrypoint":["/agent-net"],"WorkingDir":"/",'
    printf '"Healthcheck":{"Test":["CMD","/agent-net","health"],'
    printf '"Interval":10000000000,"Timeout":3000000000,"StartPeriod":10000000000,"Retries":3},'
    printf '"Labels":%s},' "$(labels)"
    printf '"rootfs":{"type":"layers","diff_ids":["%s"]},' "$2"
    printf '"history":[{"created":%s,"created_by":"scripts/release.sh","comment":"dist/rootfs"}]}' "$(json "$created")"
}

# make_image ARCH: its blobs; sets $image to the descriptor of its manifest
make_image() {
    pack "$(rootfs_of "$1")" >"$work/layer.tar"
    diff_id=sha256:$(sum_of "$work/layer.tar")
    gzip -n -9 "$work/layer.tar"
    put "$work/layer.tar.gz"
    layer=$(descriptor layer.v1.tar+gzip)
    layer_digest=$digest
    image_config "$1" "$diff_id" >"$work/config.json"
    put "$work/config.json"
    config=$(descriptor config.v1+json)
    config_digest=$digest
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s],"annotations":%s}' \
        "$config" "$layer" "$(labels)" >"$work/manifest.json"
    put "$work/manifest.json"
    manifest_digest=$digest
    image=$(descriptor manifest.v1+json ",\"platform\":{\"architecture\":\"$1\",\"os\":\"linux\"}")
    printf '%s %s %s %s\n' "$1" "$manifest_digest" "$config_digest" "$layer_digest" >>"$work/images"
}

# write_layout NAMED: makes the layout an OCI archive's that names this descriptor
write_layout() {
    printf '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' "$1" >"$work/layout/index.json"
}

# names: by which docker and podman, and tools for registries, name an image of an archive
names() {
    printf ',"annotations":{"io.containerd.image.name":"docker.io/library/agent-net:%s","org.opencontainers.image.ref.name":"%s"}' \
        "$version" "$version"
}

# One archive for each architecture, then one of both. Docker's own list of what is in an archive, manifest.json, is what
# all of its versions can load.
make_images() {
    : >"$work/images"
    both=
    for arch in amd64 arm64; do
        mkdir "$work/layout"
        make_image "$arch"
        both=$both${both:+,}$image
        write_layout "${image%\}}$(names)}"
        printf '[{"Config":"blobs/sha256/%s","RepoTags":["agent-net:%s"],"Layers":["blobs/sha256/%s"]}]' \
            "${config_digest#*:}" "$version" "${layer_digest#*:}" >"$work/layout/manifest.json"
        pack "$work/layout" >"$new/agent-net-$version-linux-$arch-image.tar"
        mkdir -p "$work/both/blobs/sha256"
        mv "$work/layout"/blobs/sha256/* "$work/both/blobs/sha256"
        rm -r "$work/layout"
    done
    mv "$work/both" "$work/layout"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s],"annotations":%s}' \
        "$both" "$(labels)" >"$work/index.json"
    put "$work/index.json"
    index_digest=$digest
    write_layout "$(descriptor index.v1+json "$(names)")"
    pack "$work/layout" >"$new/agent-net-$version-oci.tar"
    rm -r "$work/layout"
}

# Lines of DIGEST and what it is of. An image ID is that of its settings, or with the containerd image store that of its
# manifest.
write_digests() {
    printf '%s  agent-net:%s index of both images\n' "$index_digest" "$version"
    while read -r arch manifest_digest config_digest _; do
        printf '%s  agent-net:%s linux/%s image\n' "$manifest_digest" "$version" "$arch"
        printf '%s  agent-net:%s linux/%s settings\n' "$config_digest" "$version" "$arch"
    done <"$work/images"
}
