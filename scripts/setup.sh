#!/usr/bin/env bash
# Brings what the black-box tests need: as root on Debian it installs what is missing, elsewhere it lists it.
# Packages named as arguments are wanted too: setup.sh tool=package …
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

wanted=(cc=gcc make=make python3=python3 strace=strace mkfs.ext4=e2fsprogs mount=mount curl=curl chromium=chromium npm=npm docker-compose=docker-compose prometheus-alertmanager=prometheus-alertmanager openssl=openssl
  java=default-jre-headless mvn=maven redis-server=redis-server haproxy=haproxy ip=iproute2 unshare=util-linux "$@")
lacking=()
for pair in "${wanted[@]}"; do
  command -v "${pair%%=*}" >/dev/null || lacking+=("${pair#*=}")
done
# Debian's python3 comes without the means to make a virtual environment.
python3 -c 'import ensurepip, venv' 2>/dev/null || lacking+=(python3-venv)

if [ ${#lacking[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing ${lacking[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${lacking[@]}" >/dev/null
  else
    echo "setup: missing here, please install: ${lacking[*]}"
  fi
fi

stamp=.venv/requirements.txt
if ! cmp -s tests/requirements.txt "$stamp"; then
  if python3 -m venv .venv && .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt; then
    cp tests/requirements.txt "$stamp"
  else
    echo "setup: no Python environment: all black-box tests in tests/ are skipped"
    exit 0
  fi
fi
.venv/bin/python -B tests/needs.py
