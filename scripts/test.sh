#!/bin/sh
# Installs what the tests need, where it may, and runs all of them: format, lints, scripts, compose files,
# the static build, the image, and cargo test as the last, so that its summary ends the output.
#
# Usage: scripts/test.sh [--quick]
#   --quick  format, lints and cargo test alone; the tests of the static build and the image are skipped
#
# As root on Debian or Ubuntu it installs missing packages and starts a Docker daemon if none answers (and
# stops it at the end). Elsewhere it says what is missing and which tests are skipped for that; with
# CI=true that is a failure instead. schemathesis and kubernetes-validate come from PyPI, into .run/.
#
# Exit codes: 0 all passed, 64 usage, else that of the step that failed
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

# Something is not to be had: a failure on a CI machine, a smaller test run elsewhere.
without() {
    say "$*"
    [ "${CI:-}" != true ] || exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

quick=false
for arg in "$@"; do
    case $arg in
    --quick) quick=true ;;
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

# install PACKAGE...: false where that is not possible
install() {
    refresh || return 1
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" >/dev/null
}

# available PACKAGE: this distribution has it
available() {
    refresh && apt-cache show "$1" >/dev/null 2>&1
}

# want COMMAND PACKAGE, noted in $packages when the command is missing
want() {
    has "$1" || packages="$packages $2"
}

musl_std() {
    for std in "$(rustc --print target-libdir --target "$musl")"/libstd-*.rlib; do
        [ -f "$std" ] && return 0
    done
    [ -f /usr/lib/rustlib/src/rust/library/Cargo.lock ]
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

# Sets docker to a client that can use BuildKit: before version 23 it did so by itself, since then it needs
# its buildx plugin. Where a newer client lacks that, the distribution's own may do.
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

# Distributions cut Docker into packages in different ways. The client comes with docker.io or as docker-cli;
# BuildKit needs docker-buildx where there is such a package; Compose is version 1 or 2.
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

# python_tool PROGRAM VERSION LOSS: from PyPI, in a folder of its own; LOSS says what comes of its absence.
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
    want valgrind valgrind
    want busybox busybox
    want promtool prometheus
    want mandoc mandoc
    want zsh zsh
    want fish fish
    want systemd-analyze systemd
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
            without "there is no standard library for $musl"
    fi
}

# ---- Docker ----

# start_daemon OPTION...: true when it answers within 30 s
start_daemon() {
    say "starting dockerd $*"
    # All its own: no trace of another daemon, alive or dead, can be in its way, and it leaves none.
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

# Sets docker to a client that can build the image, and makes sure that a daemon answers.
find_docker() {
    find_builder || return 1
    docker info >/dev/null 2>&1 && return 0
    [ "$(id -u)" = 0 ] && has dockerd || return 1
    mkdir -p "$run"
    chmod 700 "$run"
    : >"$run/dockerd.log"
    # Machines that are containers themselves may lack overlay mounts or the right to change iptables.
    start_daemon || start_daemon --storage-driver=vfs || start_daemon --storage-driver=vfs --iptables=false || {
        say "dockerd did not start; the end of .run/dockerd.log:"
        tail -n 5 "$run/dockerd.log" >&2
        return 1
    }
}

# ---- the steps ----

# Without an exit of its own, the trap keeps the status that the script ends with.
trap stop_daemon EXIT
# Each ends through the trap above.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

prepare_rust
$quick || prepare_rest

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
    say "Rust $oldest is not to be had: that it suffices is what clippy's incompatible_msrv says alone"
fi

if ! $quick; then
    step "dependencies"
    if has cargo-deny; then
        cargo deny --offline check licenses bans sources
    else
        say "licences and duplicates are not checked: cargo-deny is missing (cargo install cargo-deny)"
    fi

    step "scripts"
    if has shellcheck && has dash; then
        shellcheck -x scripts/*.sh tests/bench/*.sh .ci/run
        for script in scripts/*.sh tests/bench/*.sh .ci/run; do
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
        for override in compose gpu runtime secrets kmsg monitoring orchestrator gateway; do
            $compose -f compose/compose.yaml -f "compose/$override.yaml" config -q
        done
    else
        without "compose files are not checked: Docker Compose is missing"
    fi

    step "Kubernetes manifest"
    validate=$run/kubernetes-validate/bin/kubernetes-validate
    [ ! -x "$validate" ] || "$validate" --strict compose/kubernetes.yaml

    step "systemd unit"
    # The program need not be installed here.
    if has systemd-analyze; then
        mkdir -p "$run"
        sed 's,^ExecStart=[^ ]*,ExecStart=/bin/true,' compose/agent-net.service >"$run/agent-net.service"
        systemd-analyze verify "$run/agent-net.service"
    else
        without "the systemd unit is not checked: systemd-analyze is missing"
    fi

    step "static build"
    if musl_std && has musl-gcc; then
        scripts/build-static.sh
        AGENT_NET_STATIC=$PWD/dist/rootfs/agent-net
        export AGENT_NET_STATIC
        step "soak, one minute"
        if has wrk; then
            scripts/soak.sh --minutes 1
        else
            without "nothing is soaked: wrk is missing"
        fi
        step "image"
        if find_docker; then
            DOCKER_BUILDKIT=1 $docker build -q -f scratch.Dockerfile --build-arg SOURCE=prebuilt -t agent-net:test .
            AGENT_NET_IMAGE=agent-net:test
            export AGENT_NET_IMAGE
        else
            without "no Docker that can build: the tests of the image are skipped"
        fi
    else
        without "no musl target: the tests of the static binary and of the image are skipped"
    fi
fi

step "tests"
cargo test --locked
