#!/usr/bin/env bash
# The peers' environments, apart from the project's and from each other: their requirements do not agree.
#   benchmarks/peers/make_environment.sh            under ~/.cache/pyro-bmf-peers
#   benchmarks/peers/make_environment.sh FOLDER     elsewhere; then run.py and report.py want --cache FOLDER
set -euo pipefail
if [[ ${1:-} == --help || ${1:-} == -h ]]; then sed -n '2,4p' "$0"; exit; fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${1:-$HOME/.cache/pyro-bmf-peers}
mkdir -p "$cache"
for group in myfm others ranking recbole; do
  [[ -x $cache/venv-$group/bin/pip ]] || "${PYTHON:-python3}" -m venv "$cache/venv-$group"
  "$cache/venv-$group/bin/pip" install --quiet -r "$here/requirements-$group.txt"
  echo "made $cache/venv-$group"
done
