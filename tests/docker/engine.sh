# Sourced: makes sure that a Docker engine answers and that the base image is there, and that of the build when it
# is asked for (`build_image`).
#
# Sets `docker` (a command as an array), `network` (options for build and run) and `build_args`. An
# engine that answers is used as it is and pulls the base images. Where none does, Debian's is
# installed and started by hand with its own socket and data under target/docker, and stopped at the
# end; it has no bridge and no firewall rules, so that nothing outside it changes, and its base images
# are made by debootstrap and this machine's own Rust toolchain, so that no registry is needed.
# shellcheck shell=bash disable=SC2034

docker=(docker)
network=()
build_args=()
engine_pid=
engine_dir=
suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

engine_stop() {
    [ -n "$engine_pid" ] || return 0
    kill "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    engine_pid=
    # The engine leaves the network namespace of its containers mounted.
    umount "$engine_dir"/exec/netns/* 2>/dev/null || true
    rm -rf --one-file-system "$engine_dir"
}

engine_start() {
    # DOCKER_BUILDKIT=0: the builder inside the engine, since Debian's client brings no other.
    export DOCKER_BUILDKIT=0
    if [ "${PROCESSION_TEST_ENGINE:-}" != own ] && command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        echo "using the Docker engine that answers"
        unset DOCKER_BUILDKIT
        return 0
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "no Docker engine answers, and only root can start one" >&2
        return 1
    fi
    PATH=$PATH:/usr/sbin:/sbin
    scripts/need.sh dockerd=docker.io iptables debootstrap tar curl
    engine_dir=$(mktemp -d /tmp/procession-docker.XXXXXX)
    mkdir -p target/docker
    # shellcheck disable=SC2094
    env -u DOCKER_HOST dockerd --data-root "$PWD/target/docker/data" --exec-root "$engine_dir/exec" \
        --pidfile "$engine_dir/pid" --host "unix://$engine_dir/docker.sock" \
        --bridge=none --iptables=false --ip6tables=false >target/docker/dockerd.log 2>&1 &
    engine_pid=$!
    docker=(docker --host "unix://$engine_dir/docker.sock")
    network=(--network host)
    local tries=0
    until "${docker[@]}" info >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 60 ] || ! kill -0 "$engine_pid" 2>/dev/null; then
            echo "the Docker engine did not start:" >&2
            tail -5 target/docker/dockerd.log >&2
            return 1
        fi
        sleep 0.5
    done
    echo "started Docker engine $("${docker[@]}" version --format '{{.Server.Version}}') with data in target/docker"
    runtime_image
    build_args=(--build-arg "BUILD_IMAGE=procession-test/rust" --build-arg "RUNTIME_IMAGE=procession-test/debian")
}

runtime_image() {
    local root=$engine_dir/root
    ! "${docker[@]}" image inspect procession-test/debian >/dev/null 2>&1 || return 0
    echo "making a Debian $suite base image"
    debootstrap --variant=minbase "$suite" "$root" "$mirror" >target/docker/debootstrap.log 2>&1
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
    tar -C "$root" -c . | "${docker[@]}" import - procession-test/debian >/dev/null
    rm -rf "$root"
}

# Made again when the toolchain changes: its version is the image's label. Nothing to do where the engine pulls it.
build_image() {
    [ -n "$engine_pid" ] || return 0
    local root=$engine_dir/root rustc
    rustc=$(rustc --version)
    [ "$("${docker[@]}" image inspect --format '{{index .Config.Labels "rustc"}}' procession-test/rust 2>/dev/null)" != "$rustc" ] \
        || return 0
    echo "making a build image with $rustc"
    debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates \
        "$suite" "$root" "$mirror" >target/docker/debootstrap.log 2>&1
    mkdir -p "$root/usr/local/rust"
    # Without the manuals, which are half of it.
    tar -C "$(rustc --print sysroot)" -c --exclude=./share . | tar -C "$root/usr/local/rust" -x
    # The authorities that this machine trusts, which may be more than Debian's.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    tar -C "$root" -c . | "${docker[@]}" import \
        --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt' \
        --change "LABEL rustc='$rustc'" - procession-test/rust >/dev/null
    rm -rf "$root"
}
