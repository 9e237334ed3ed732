#!/usr/bin/env bash
# Installs the big parts that `make test-real` uses. What cannot be installed is named here, and
# again at the end of the test run by the tests that miss it.
set -u

root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

if command -v apt-get >/dev/null; then
    wanted=()
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || wanted+=(postgresql)
    if [ "${#wanted[@]}" -gt 0 ]; then
        root apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive root apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null ||
            echo "could not install: ${wanted[*]}"
    fi
else
    echo "no apt-get here: install PostgreSQL by hand for the storage tests"
fi
