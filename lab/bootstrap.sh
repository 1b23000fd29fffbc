# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# Sourced by the commands of lab/ and tests/: makes sure that what they need is there.
#   bootstrap lab|tests   a cached virtualenv in $VENV, with the collection amazon.aws in $VENV/collections
#   need_packages NAME... Debian packages, installed when missing (root), named when they cannot be

EVERNAT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ "$(id -u)" -eq 0 ]; then
  EVERNAT_CACHE=${EVERNAT_CACHE:-/var/cache/evernat-lab}
else
  EVERNAT_CACHE=${EVERNAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/evernat-lab}
fi
export EVERNAT_ROOT EVERNAT_CACHE

# amazon.aws is on no package registry by itself: it is taken out of the PyPI package `ansible`, which bundles it.
ANSIBLE_BUNDLE=14.5.0

say() { printf '%s\n' "$*" >&2; }
die() { say "evernat: $*"; exit 1; }

need_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  [ "$(id -u)" -eq 0 ] || die "these Debian packages are missing: ${missing[*]}. Install them, or run this command as root."
  say "installing Debian packages: ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >"$EVERNAT_CACHE/apt.log" 2>&1 || die "apt-get could not install: ${missing[*]} (see $EVERNAT_CACHE/apt.log)"
}

bootstrap() {
  local kind=$1 python=${PYTHON:-python3} list="$EVERNAT_ROOT/$1/requirements.txt" key
  command -v "$python" >/dev/null || die "no python3 found. Python 3.11 or later is needed."
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || die "$("$python" -V) found, Python 3.11 or later is needed."
  mkdir -p "$EVERNAT_CACHE" || die "cannot create the cache folder $EVERNAT_CACHE. Set EVERNAT_CACHE to a folder that can be written."
  "$python" -c 'import venv, ensurepip' 2>/dev/null || need_packages python3-venv
  # base_prefix: a command that is started from inside the virtualenv finds the same one, and makes no second.
  key=$({ "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; echo "$ANSIBLE_BUNDLE"
          cat "$EVERNAT_ROOT"/lab/requirements.txt "$list"; } | sha256sum | cut -c1-12)
  VENV=$EVERNAT_CACHE/venv-$kind-$key
  export VENV
  (
    flock 9
    [ -e "$VENV/complete" ] && exit 0
    say "making the virtualenv $VENV (about a minute, once)"
    rm -rf "$VENV" &&
      "$python" -m venv "$VENV" &&
      "$VENV/bin/pip" install -q --disable-pip-version-check -r "$list" &&
      bundle_amazon_aws &&
      touch "$VENV/complete"
  ) 9>"$EVERNAT_CACHE/venv.lock" >"$EVERNAT_CACHE/venv.log" 2> >(grep -v '^WARNING' >&2) \
    || die "the virtualenv could not be made (see $EVERNAT_CACHE/venv.log)"
  export PATH="$VENV/bin:$PATH" PYTHONPATH="$EVERNAT_ROOT${PYTHONPATH:+:$PYTHONPATH}"
}

# amazon.aws as a tarball (an honest install later) and unpacked (for linters and unit tests).
bundle_amazon_aws() {
  local work="$VENV/bundle"
  mkdir -p "$work" "$VENV/collections" &&
    "$VENV/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.13 \
      -d "$work" "ansible==$ANSIBLE_BUNDLE" &&
    "$VENV/bin/python" -P "$EVERNAT_ROOT/lab/bundle.py" "$work"/ansible-*.whl "$VENV/collections" &&
    rm -f "$work"/ansible-*.whl &&
    "$VENV/bin/ansible-galaxy" collection build --output-path "$work" "$VENV/collections/ansible_collections/amazon/aws"
}

# What the lab itself needs of the machine it runs on; everything else is inside the hosts' images.
need_lab_packages() {
  need_packages mmdebstrap debian-archive-keyring iproute2 nftables util-linux procps openssh-client
}
