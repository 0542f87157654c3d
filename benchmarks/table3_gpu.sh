#!/bin/sh
# Table 3 on MovieLens 1M with settings that were chosen already, on one GPU.
#
#     PYRO_BMF_DATA_DIR=... benchmarks/table3_gpu.sh [CHOSEN.json] [OUT]
#
# CHOSEN.json is a table3-chosen.json of an earlier run; nothing is tuned. By estimate it takes at most ten minutes
# on one H100: one seed, a budget of seconds for each row, the row `literal` last and cut to as many iterations
# as its budget holds. A row that is finished is not run again, so that a second call goes on.
set -eu
chosen=${1:-benchmarks/results/table3/table3-chosen.json}
out=${2:-experiments/table3-gpu}
common="--data ml1m --seeds 1 --settings $chosen --device cuda --out $out"
began=$(date +%s)

row() { # row MODELS [OPTIONS]: nothing begins after 570 s
    left=$((570 - $(date +%s) + began))
    [ "$left" -gt 0 ] || { echo "no time left for $1"; return 0; }
    # shellcheck disable=SC2086
    pyro-bmf experiment table3 $common --timeout "$left" --models "$@"
}

row i-rec,u-rec,dae-cf,vae-cf
row ncf,default
row cnn-cf
row paper
row literal --iterations "literal=${LITERAL_ITERATIONS:-12}"
# All rows side by side, from their finished cells.
# shellcheck disable=SC2086
pyro-bmf experiment table3 $common --timeout 0 --iterations "literal=${LITERAL_ITERATIONS:-12}"
