#!/usr/bin/env bash
# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tests/gates.sh lint     ruff, mypy, shellcheck, ansible-lint (profile production), changelog
# tests/gates.sh sanity   ansible-test sanity, on every Python that is found
# tests/gates.sh units    ansible-test units, on this Python and the oldest one that is found
#
# ansible-test and ansible-lint want the path ansible_collections/NAMESPACE/NAME: they work on a copy of what is shipped
# and of its unit tests, with amazon.aws beside it, and with a HOME of their own, which keeps ansible-test's virtualenvs.
set -eu
cd "$(dirname "$0")/.."
. lab/bootstrap.sh

make_tree() {
  tree=$(mktemp -d)
  trap 'rm -rf "$tree"' EXIT
  collection=$tree/ansible_collections/evernat/aws
  mkdir -p "$collection"
  { git ls-files -z ':!.ci' ':!lab' ':!tests'; git ls-files -z tests/unit tests/sanity tests/config.yml; } | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
  done | tar -c --null -T - | tar -x -C "$collection"
  ln -s "$VENV/collections/ansible_collections/amazon" "$tree/ansible_collections/amazon"
  export HOME=$EVERNAT_CACHE/gates-home ANSIBLE_COLLECTIONS_PATH=$tree
  mkdir -p "$HOME"
  cd "$collection"
}

# ansible-test fetches get-pip.py from a server of its own. In its cache it takes any: the pip that Python brings along will do.
put_get_pip() {
  local requirements version
  requirements=$("$VENV/bin/python" -c 'import ansible_test; print(list(ansible_test.__path__)[0])')/_internal/python_requirements.py
  mkdir -p "$HOME/.ansible/test/cache"
  version=$(grep -oP "pip='\K[0-9.]+" "$requirements" | head -n 1)
  [ -n "$version" ] || die "no pip version found in $requirements: ansible-test has changed, look into put_get_pip of tests/gates.sh."
  printf 'import ensurepip\n\nensurepip.bootstrap()\n' >"$HOME/.ansible/test/cache/get_pip_${version//./_}.py"
}

# Other Pythons, installed side by side. pyenv's shims must not be found: they exit with 127 for a version that is not chosen.
find_pythons() {
  local own=$1 version found path=$VENV/bin
  for version in 3.9 3.10 3.11 3.12 3.13 3.14; do
    for found in "$own"/.pyenv/versions/"$version".*/bin /opt/python/"$version"*/bin; do
      if [ -x "$found/python$version" ]; then path=$path:$found; break; fi
    done
  done
  export PATH=$path:/usr/local/bin:/usr/bin:/bin
}

this_python() { "$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

oldest_python() {
  local version
  for version in 3.9 3.10 3.11; do
    if command -v "python$version" >/dev/null && "python$version" -c 'import ensurepip' 2>/dev/null; then echo "$version"; return; fi
  done
  this_python
}

# Every file but the licence itself says whose it is and under which licence.
say_licence() {
  local bare
  bare=$(git ls-files ':!COPYING' ':!LICENSES' | while IFS= read -r file; do
    if [ -f "$file" ] && ! grep -q SPDX-License-Identifier "$file"; then echo "$file"; fi
  done)
  [ -z "$bare" ] || { say "no SPDX lines: $bare"; return 1; }
  echo "every file has its SPDX lines"
}

gate_lint() {
  local failed=() scripts agent=roles/cluster/files/ocf/lib/evernat
  check() {
    printf '%s: ' "$1"
    "${@:2}" || failed+=("$1")
  }
  check licence say_licence
  check ruff "$VENV/bin/ruff" check --no-cache --output-format concise .
  check mypy "$VENV/bin/mypy" plugins/module_utils lab
  # The agent's files lie side by side on a host, the engine among them.
  check mypy-agent env "MYPYPATH=plugins/module_utils:$agent" "$VENV/bin/mypy" --no-explicit-package-bases "$agent"
  scripts=$(git ls-files ':!*.j2' | while IFS= read -r file; do
    if [ -f "$file" ] && head -n 1 "$file" | grep -Eq '^#!.*(bash|/sh)( |$)'; then echo "$file"; fi
  done)
  # shellcheck disable=SC2086 # one name a line, none with a space
  check shellcheck shellcheck -x $scripts
  make_tree
  check ansible-lint "$VENV/bin/ansible-lint" --offline --strict --nocolor
  check antsibull-changelog "$VENV/bin/antsibull-changelog" lint
  [ ${#failed[@]} -eq 0 ] || die "lint failed: ${failed[*]}"
}

gate_sanity() {
  find_pythons "$HOME"
  make_tree
  put_get_pip
  "$VENV/bin/ansible-test" sanity --color no
}

gate_units() {
  local python
  find_pythons "$HOME"
  make_tree
  put_get_pip
  for python in $(printf '%s\n' "$(this_python)" "$(oldest_python)" | sort -uV); do
    "$VENV/bin/ansible-test" units --color no --venv --python "$python"
  done
}

case "${1:-}" in
  lint | sanity | units) ;;
  *) die "usage: tests/gates.sh lint|sanity|units" ;;
esac
bootstrap tests
"gate_$1"
