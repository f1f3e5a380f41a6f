#!/usr/bin/env bash
# Sets up everything in .venv and says what it does. Usage: scripts/setup.sh run|dev
# Does nothing when pyproject.toml has not changed since the last time.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-run}
stamp=.venv/.installed-$what

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

# Debian packages: asked for only when the program is missing, and never fatal unless nothing works without them.
need_deb() { # program package why
    command -v "$1" >/dev/null 2>&1 || missing="${missing:-} $2"
}
install_missing() {
    [ -n "${missing:-}" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        say "please install these with your package manager:$missing"
        return 1
    fi
    local sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || { say "run as root: apt-get install$missing"; return 1; }
        sudo=sudo
    fi
    say "installing system packages:$missing"
    $sudo apt-get update -qq >&2 || true
    # shellcheck disable=SC2086 # the list is meant to be split
    if ! log=$($sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing 2>&1); then
        printf '%s\n' "$log" >&2
        return 1
    fi
    missing=""
}

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "Python 3.11 or newer is needed; set PYTHON to one (found: $("$python" --version 2>&1 || echo none))"
    exit 1
fi
missing=""
need_deb flite flite "speech for mynah talk, make demo and the tests"
if [ "$missing" ]; then
    install_missing || say "without flite, 'mynah talk --text' speaks with eSpeak, which the recogniser understands badly"
fi

missing=""
if [ "$what" = dev ]; then
    need_deb chromium chromium "the test of the web client"
    if [ "$missing" ]; then
        install_missing || say "without chromium, the test of examples/web-client.html is skipped"
    fi
fi

if [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ]; then
    exit 0
fi
if [ ! -x .venv/bin/python ]; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        missing="python3-venv"
        install_missing
    fi
    say "creating .venv with $("$python" --version)"
    "$python" -m venv .venv
fi
# Dependency groups need pip 25.1.
say "installing Mynah and its Python packages into .venv ($what); this takes a minute or two the first time"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
if [ "$what" = dev ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
    touch .venv/.installed-run
else
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
fi
touch "$stamp"
say "done: $(du -sm .venv | cut -f1) MB in .venv"
