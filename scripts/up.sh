#!/bin/sh
# Starts the worker on a fresh machine, waits until it responds, and prints a first report.
#
# Usage: scripts/up.sh [--docker|--native|--down] [--upgrade]
#   (nothing)  use Docker Compose, next to an Ollama container, if Docker works; otherwise run natively
#   --docker   use Docker Compose; fail if it is unavailable
#   --native   run in the background; pid and log are in .run/
#   --down     stop what this script started
#   --upgrade  replace a worker that is already running by this version, newer or older, with the settings as they are now,
#              and with Docker with the same files of compose/
#
# Settings are the worker's own environment variables (SERVER_PORT, ORCH_URL, ...). With Docker they may also be in
# compose/.env, see compose/.env.example. Without --upgrade a running worker is left alone, with its settings.
#
# In a clone it builds the worker first, unless AGENT_NET_IMAGE names an image. A release has its programs with it, and
# uses the image of its version, which `docker load` must have loaded, or the one that AGENT_NET_IMAGE names.
# After an upgrade with Docker that fails, the image of the worker that ran before is agent-net:previous.
#
# Exit codes: 0 running (with --down: stopped), 1 could not be started or stopped, 64 usage
set -eu

usage() {
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"
}

say() {
    printf 'up: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

mode=auto
upgrade=false
for arg in "$@"; do
    case $arg in
    --docker | --native | --down) mode=${arg#--} ;;
    --upgrade) upgrade=true ;;
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

unset CDPATH GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
cd "$(dirname "$0")/.."
run=.run
log=$run/agent-net.log
pidfile=$run/agent-net.pid
if [ -f Cargo.toml ]; then
    program=${CARGO_TARGET_DIR:-target}/release/agent-net
    release=
else
    program=./agent-net
    release=$(cat VERSION)
fi

# ---- for Docker and native ----

# setting NAME: from the environment, or from compose/.env with Docker.
setting() {
    eval "value=\${$1:-}"
    if [ -z "$value" ] && [ "$mode" != native ] && [ -f compose/.env ]; then
        value=$(sed -n "s/^$1=//p" compose/.env | tail -n 1)
        # Compose removes one pair of quotes.
        case $value in
        \"*\" | \'*\') value=${value#?} value=${value%?} ;;
        esac
    fi
    printf %s "$value"
}

# The worker's URL. If it took a free port or another address, its log has them.
base_url() {
    port=$(setting SERVER_PORT)
    host=127.0.0.1
    if [ "$mode" = native ]; then
        case ${SERVER_HOST:-} in
        '' | 0.0.0.0 | ::) ;;
        *:*) host="[$SERVER_HOST]" ;;
        *) host=$SERVER_HOST ;;
        esac
        if [ "$port" = 0 ]; then
            port=$(sed -n 's/.*listening on http:.*:\([0-9]\{1,\}\).*/\1/p' "$log" 2>/dev/null | tail -n 1)
        fi
    fi
    printf 'http://%s:%s' "$host" "${port:-9876}"
}

healthy() {
    curl -fsS -m 2 "$(base_url)/health" >/dev/null 2>&1
}

# wait_healthy SECONDS ALIVE: waits until it responds, while the command ALIVE succeeds.
wait_healthy() {
    tries=$(($1 * 5))
    while [ "$tries" -gt 0 ]; do
        "$2" || return 1
        healthy && return 0
        sleep 0.2
        tries=$((tries - 1))
    done
    return 1
}

show_answer() {
    url=$(base_url)
    token=$(setting WORKER_TOKEN)
    file=$(setting WORKER_TOKEN_FILE)
    [ -n "$token" ] || [ ! -r "${file:-/nonexistent}" ] || token=$(cat "$file")
    header=
    # shellcheck disable=SC2016 # it is printed for the reader's shell to expand
    [ -z "$token$file" ] || header=' -H "Authorization: Bearer $WORKER_TOKEN"'
    say "worker is up. Status page: $url. Try:"
    printf "curl -sS%s -d '{\"agent_id\":\"demo-agent\"}' %s/gpu-check\n" "$header" "$url"
    # The header is passed on standard input, since other users can read a command line.
    if printf 'Authorization: Bearer %s\n' "$token" |
        curl -sS -m 10 ${token:+-H @-} -d '{"agent_id":"demo-agent"}' "$url/gpu-check"; then
        echo
    else
        fail "the first job got no response"
    fi
    say "the same in words:"
    if [ "$mode" = native ]; then
        "$program" check --url "$url" || :
    else
        docker exec "$(worker_container)" /agent-net check || :
    fi
}

git_here() {
    git --no-optional-locks -c "safe.directory=$(pwd -P)" "$@" 2>/dev/null
}

# In a clone: sets AGENT_NET_COMMIT, which the programs name in --version. A build in a container does not see git.
name_commit() {
    [ -e .git ] && commit=$(git_here rev-parse --verify -q HEAD) || return 0
    AGENT_NET_COMMIT=$(printf %.12s "$commit")
    # What is compiled. The other files hold settings.
    [ -z "$(git_here status --porcelain -- src stubs build.rs 'Cargo.*' scripts scratch.Dockerfile)" ] ||
        AGENT_NET_COMMIT=$AGENT_NET_COMMIT-dirty
    export AGENT_NET_COMMIT
}

# ---- native ----

# The pid of our worker, if it runs. A pid file may be older than the last boot, so that its number now belongs to
# another program.
native_pid() {
    [ -f "$pidfile" ] || return 1
    pid=$(cat "$pidfile")
    case $pid in
    '' | *[!0-9]*) pid=0 ;;
    esac
    if [ "$pid" -gt 0 ]; then
        # A program that was rebuilt shows as deleted.
        exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || exe=
        case ${exe% (deleted)} in
        */agent-net)
            printf %s "$pid"
            return 0
            ;;
        esac
    fi
    return 1
}

native_alive() {
    native_pid >/dev/null
}

show_log() {
    say "the last lines of $log:"
    tail -n 15 "$log" >&2
}

native_up() {
    mode=native
    if [ -z "$release" ]; then
        command -v cargo >/dev/null 2>&1 || fail "cargo is missing: install Rust, for example with rustup, or Docker"
        say "building with cargo"
        name_commit
        cargo build --locked --release
    fi
    ! $upgrade || native_down
    mkdir -p "$run"
    chmod 700 "$run"
    if [ -f "$pidfile" ]; then
        say "removing $pidfile of a worker that no longer runs"
        rm -f "$pidfile"
    fi
    # Keep the previous log, since it may say why that run ended.
    [ ! -f "$log" ] || mv "$log" "$log.old"
    # nohup: it keeps running after this terminal closes.
    nohup "$program" serve >"$log" 2>&1 </dev/null &
    started=$!
    echo "$started" >"$pidfile"
    # /proc shows the shell until its child has become the worker.
    tries=20
    until native_alive || [ "$tries" = 0 ]; do
        tries=$((tries - 1))
        sleep 0.05
    done
    if ! wait_healthy 30 native_alive; then
        show_log
        if native_alive; then
            kill "$started" 2>/dev/null || :
            rm -f "$pidfile"
            fail "the worker did not respond at $(base_url) within 30 s"
        fi
        rm -f "$pidfile"
        fail "the worker exited immediately"
    fi
    # Another worker on this port may have responded while ours was still failing to take it.
    sleep 0.3
    if ! native_alive; then
        show_log
        rm -f "$pidfile"
        fail "the worker exited immediately; something else responds at $(base_url)"
    fi
    say "started with pid $started. Log: $log. Stop: scripts/up.sh --down"
    show_answer
}

native_down() {
    if pid=$(native_pid); then
        kill "$pid" 2>/dev/null || :
        # Jobs in flight may take 10 s to finish.
        tries=75
        while native_alive && [ "$tries" -gt 0 ]; do
            sleep 0.2
            tries=$((tries - 1))
        done
        if native_alive; then
            say "pid $pid did not stop within 15 s: killing it"
            kill -9 "$pid" 2>/dev/null || :
        fi
        say "stopped the worker with pid $pid"
        down=true
    fi
    rm -f "$pidfile"
}

# ---- Docker ----

# Sets compose to the words of a working command, or why to the reason there is none.
find_compose() {
    compose=
    compose_path=$PATH
    if ! command -v docker >/dev/null 2>&1; then
        why="docker is not installed"
    elif docker compose version >/dev/null 2>&1; then
        compose="docker compose"
    elif command -v docker-compose >/dev/null 2>&1; then
        compose=docker-compose
        # Version 1 builds without the client and without BuildKit by default.
        export COMPOSE_DOCKER_CLI_BUILD=1 DOCKER_BUILDKIT=1
        if ! docker buildx version >/dev/null 2>&1 && [ -x /usr/bin/docker ]; then
            # A newer client without its buildx plugin cannot use BuildKit. The distribution's client can.
            compose_path=/usr/bin:$PATH
        fi
    else
        why="Docker Compose is not installed"
    fi
    [ -n "$compose" ] || return 1
    if ! error=$(docker info 2>&1 >/dev/null); then
        why="Docker cannot be used: $(printf %s "$error" | tail -n 1)"
        return 1
    fi
}

# If Docker cannot provide a requested GPU, nothing starts. So request it only if the GPU and NVIDIA's container tools
# are there.
find_gpu() {
    files="-f compose/compose.yaml"
    gpu=compose/gpu.yaml
    if [ -e /etc/nv_tegra_release ]; then
        # Docker cannot request the GPU of a Jetson.
        gpu=compose/runtime.yaml
    elif [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ] && ! nvidia-smi -L >/dev/null 2>&1; then
        say "no NVIDIA GPU found: starting without one"
        [ ! -e /dev/kfd ] || say "AMD GPU found: the worker reads it. For Ollama see AMD in compose/README.md"
        return
    fi
    if docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q nvidia ||
        command -v nvidia-container-cli >/dev/null 2>&1 || command -v nvidia-ctk >/dev/null 2>&1; then
        files="$files -f $gpu"
    else
        say "NVIDIA GPU found, but the NVIDIA Container Toolkit is missing: containers cannot use it"
        say "install: https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/"
    fi
}

# One project name, independent of the folder's.
run_compose() {
    # shellcheck disable=SC2086 # lists of words
    PATH=$compose_path $compose -p agent-net $files "$@"
}

project=label=com.docker.compose.project=agent-net

# worker_container [-a]: that of the worker, if it runs, with -a also if it does not.
worker_container() {
    docker ps -q "$@" --filter "$project" --filter label=com.docker.compose.service=agent-net | head -n 1
}

docker_alive() {
    [ -n "$(worker_container)" ]
}

# It runs, and Docker is not waiting to restart it, as after an invalid setting.
docker_steady() {
    [ -n "$(worker_container --filter status=running)" ]
}

# about_worker FORMAT
about_worker() {
    docker inspect -f "$1" "$(worker_container -a)" 2>/dev/null || :
}

# Adds to files those of compose/ with which the worker was started, from whichever folder.
add_used_files() {
    used=$(about_worker '{{index .Config.Labels "com.docker.compose.project.config_files"}}' | tr , '\n' | sed 's|.*/||')
    more=
    for file in $used; do
        case $file in
        compose.yaml | gpu.yaml) continue ;;
        # They take the place of gpu.yaml.
        amd.yaml | runtime.yaml) files="-f compose/compose.yaml" ;;
        esac
        [ -f "compose/$file" ] ||
            fail "the worker was started with $file, which is not in compose/: use docker compose with your files"
        more="$more -f compose/$file"
    done
    [ -z "$more" ] || say "as the worker was started before:$more"
    files=$files$more
}

# Sets build to Compose's flag, and AGENT_NET_IMAGE to the image of a release. An image with a / in its name comes from a
# registry.
choose_image() {
    image=$(setting AGENT_NET_IMAGE)
    build=--build
    if [ -z "$image$release" ]; then
        name_commit
        return 0
    fi
    build=--no-build
    AGENT_NET_IMAGE=${image:-agent-net:$release}
    export AGENT_NET_IMAGE
    ! docker image inspect "$AGENT_NET_IMAGE" >/dev/null 2>&1 || return 0
    case $AGENT_NET_IMAGE in
    # Version 1 of Compose does not pull what it could build.
    */*) docker pull "$AGENT_NET_IMAGE" >&2 || fail "the image $AGENT_NET_IMAGE cannot be pulled (see above)" ;;
    *) fail "the image $AGENT_NET_IMAGE is missing: load it with docker load -i agent-net-VERSION-linux-ARCH-image.tar" ;;
    esac
}

# Names the image of the worker that ran before, if it is another one, and says how to return to it.
keep_former() {
    if [ -n "$former" ] && [ "$former" != "$(docker image inspect -f '{{.Id}}' "${AGENT_NET_IMAGE:-agent-net}")" ] &&
        docker tag "$former" agent-net:previous; then
        say "to return to the former image: AGENT_NET_IMAGE=agent-net:previous scripts/up.sh --upgrade"
    fi
}

docker_up() {
    find_gpu
    services=
    former=
    replacing=false
    if $upgrade && [ -n "$(worker_container -a)" ]; then
        replacing=true
        add_used_files
        # Not a container that holds the port, nor an orchestrator.
        services="agent-net ollama"
        # A worker that does not respond is nothing to return to. It may have another SERVER_PORT than this version gets.
        ! docker exec "$(worker_container)" /agent-net health >/dev/null 2>&1 || former=$(about_worker '{{.Image}}')
    fi
    choose_image
    # shellcheck disable=SC2086 # a list of words
    if ! run_compose up -d "$build" $services; then
        # Nothing else takes the place of a worker that runs, or ran until now.
        if $replacing; then
            ! docker_alive ||
                fail "Compose could not build or start this version (see above); the running worker was left alone"
            keep_former
            fail "Compose could not start this version (see above), and the worker is stopped"
        fi
        # Free the port for a native worker.
        run_compose rm -s -f agent-net >/dev/null 2>&1 || :
        why="Compose could not build or start the containers (see above)"
        return 1
    fi
    if ! wait_healthy 60 docker_steady; then
        run_compose logs --tail 5 agent-net >&2 || :
        keep_former
        fail "the worker does not respond at $(base_url); its log is above"
    fi
    say "started with $compose. Log: $compose -p agent-net $files logs agent-net. Stop: scripts/up.sh --down"
    show_answer
}

# Stops the worker and Ollama.
docker_down() {
    services=$(docker ps -a --filter "$project" --format '{{.Label "com.docker.compose.service"}}' | sort -u)
    others=$(printf %s "$services" | grep -vx -e agent-net -e ollama | tr '\n' ' ') || others=
    case $services in
    *agent-net* | *ollama*)
        # Compose cannot remove a network that others use.
        if [ -n "$others" ]; then remove="rm -s -f"; else remove=down; fi
        case " $others" in
        # After SIGTERM alone orchestrators would go on sending jobs to the held port, which no worker answers.
        *" port "*) docker kill -s INT "$(worker_container)" >/dev/null 2>&1 || : ;;
        esac
        # shellcheck disable=SC2086 # a list of words
        run_compose $remove || fail "Compose could not stop the containers"
        down=true
        ;;
    esac
    [ -z "$others" ] || say "left running: ${others% } (to stop all: $compose -p agent-net $files down --remove-orphans)"
}

# ---- start or stop ----

command -v curl >/dev/null 2>&1 || fail "curl is missing: install the package curl"

if [ "$mode" = down ]; then
    down=false
    native_down
    files="-f compose/compose.yaml"
    if find_compose; then
        docker_down
    fi
    $down || say "nothing was running"
    exit 0
fi

if $upgrade && [ "$mode" != docker ] && native_alive; then
    native_up
    exit 0
fi

if pid=$(native_pid); then
    mode=native
    say "already running with pid $pid"
    wait_healthy 5 native_alive || fail "it does not respond at $(base_url); see $log"
    show_answer
    exit 0
fi

if [ "$mode" != native ]; then
    if find_compose; then
        if docker_alive && ! $upgrade; then
            say "already running in Docker"
            wait_healthy 30 docker_steady ||
                fail "it does not respond at $(base_url): see docker logs $(worker_container), fix the cause," \
                    "and run scripts/up.sh --upgrade"
            show_answer
            exit 0
        fi
        docker_up && exit 0
    fi
    [ "$mode" = auto ] || fail "$why"
    say "$why: running natively instead"
fi
native_up
