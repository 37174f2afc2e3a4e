#!/usr/bin/env bash
# The CIFAR-10-LT comparison on a GPU, in slices of at most ten minutes.
#
# Each slice finishes whole runs (trained, attacked, reported) and leaves only what tables are made
# of, a few hundred kB, in the folder RESULTS: a ResNet-18 with its momentum would be 90 MB. Slices
# may run on different machines; what an earlier one finished is not needed by a later one.
#
#   benchmarks/run_gpu.sh list                   the slices
#   benchmarks/run_gpu.sh pgd-at out             one slice; results in out/
#   benchmarks/run_gpu.sh merge out results/cifar10-lt   put slices together and make the report
#
# LTROBUST_DATA_DIR must hold CIFAR-10, and `ltrobust` must be installed (LTROBUST=... names another
# command, such as "python -m ltrobust"). DEVICE defaults to cuda, SECONDS_LEFT to 570; FLAGS are
# further flags of bench.
set -euo pipefail

ltrobust=${LTROBUST:-ltrobust}
device=${DEVICE:-cuda}
limit=${SECONDS_LEFT:-570}
more=${FLAGS:-}
slices=(speed pgd-at trades robal at-bsl taet at-bsl-ra at-bsl-paper)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    echo "slices: ${slices[*]}"
}

# bench in a scratch folder, then everything but weights and resume states goes to RESULTS
bench() {
    local results=$1
    shift
    local work
    work=$(mktemp -d)
    local code=0
    # shellcheck disable=SC2086  # several words each
    timeout "$limit" $ltrobust bench --suite "$here/cifar10-lt.yaml" --device "$device" \
        --output "$work" "$@" $more || code=$?
    mkdir -p "$results/runs"
    find "$work/runs" -name run.json 2>/dev/null | while read -r record; do
        local run
        run=$(dirname "$record")
        if grep -q '"status": "done"' "$record"; then
            mkdir -p "$results/runs/$(basename "$run")"
            find "$run" -maxdepth 1 -type f ! -name '*.safetensors' ! -name 'state.pt' \
                -exec cp {} "$results/runs/$(basename "$run")/" \;
        else
            echo "not finished, left behind: $(basename "$run")" >&2
        fi
    done
    rm -rf "$work"
    return "$code"
}

if [ $# -lt 1 ]; then
    usage
    exit 2
fi
slice=$1
results=${2:-}
if [ "$slice" != list ] && [ -z "$results" ]; then
    echo "error: give a folder for the results, such as: $0 $slice out" >&2
    exit 2
fi
case $slice in
    list) printf '%s\n' "${slices[@]}" ;;
    speed)
        mkdir -p "$results"
        for script in training autoattack data; do
            timeout "$limit" python "$here/speed/$script.py" --device "$device" \
                --json "$results/speed-$script.json"
        done
        ;;
    pgd-at | trades | robal | at-bsl | taet) bench "$results" --methods "$slice" ;;
    at-bsl-ra) bench "$results" --methods at-bsl --augment randaugment ;;
    at-bsl-paper) bench "$results" --methods at-bsl --recipe paper ;;
    merge)
        target=${3:?error: give the folder of the report, such as results/cifar10-lt}
        mkdir -p "$target/runs"
        cp -r "$results/runs/." "$target/runs/"
        # shellcheck disable=SC2086
        $ltrobust report "$target"
        ;;
    *)
        echo "error: unknown slice '$slice'; known: ${slices[*]} list merge" >&2
        exit 2
        ;;
esac
