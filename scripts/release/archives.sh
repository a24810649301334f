# Sourced by scripts/release.sh: the archives for people, with all that is needed without a clone.
# shellcheck shell=sh

# shellcheck disable=SC2154 # set by the script that sources this
: "${arch=}" "$new" "$own_arch" "$version" "$work"

# copy_tracked FOLDER PATH...: files of the commit with their modes
copy_tracked() {
    to=$1
    shift
    git_here ls-files -s -- "$@" | while read -r mode _ _ file; do
        install -D -m "${mode#100}" "$file" "$to/$file"
    done
}

# use_loaded_image FILE: this Compose file takes the image that `docker load` has loaded, and has nothing to build.
use_loaded_image() {
    sed -e "s/\${\(AGENT_NET[A-Z_]*\):-agent-net}/\${\1:-agent-net:$version}/" \
        -e '/^    build:$/,/^    [^ ]/{/^    build:$/d;/^      /d;}' "$folder/compose/$1" >"$work/$1"
    install -m 644 "$work/$1" "$folder/compose/$1"
}

# make_archive: that of $arch
make_archive() {
    name=agent-net-$version-linux-$arch
    folder=$work/$name
    rootfs=$(rootfs_of "$arch")
    mkdir -p "$folder/completions" "$folder/man"
    install -m 755 "$rootfs/agent-net" "$rootfs/agent-net-nvml" "$folder"
    # They are the same for all architectures.
    own=dist/rootfs/agent-net
    "$own" completions bash >"$folder/completions/agent-net.bash"
    "$own" completions zsh >"$folder/completions/_agent-net"
    "$own" completions fish >"$folder/completions/agent-net.fish"
    "$own" man >"$folder/man/agent-net.1"
    copy_tracked "$folder" README.md CHANGELOG.md LICENSE compose src/README.md src/reference.md tests/pictures \
        scripts/gpu-smoke.sh scripts/job.sh scripts/poll.sh scripts/up.sh
    # By this scripts/up.sh knows that there is nothing to build.
    printf '%s\n' "$version" >"$folder/VERSION"
    use_loaded_image compose.yaml
    use_loaded_image hold-port.yaml
    pack "$work" "$name" >"$work/$name.tar"
    gzip -n -9 <"$work/$name.tar" >"$new/$name.tar.gz"
    rm -r "$folder" "$work/$name.tar"
}
