#!/usr/bin/env bash
# The full-size comparison on a GPU that is lent for some minutes, on a machine without a network.
#
#   benchmarks/gpu_day.sh pack PACK CIFAR_DIR   here: what the other machine needs, in one folder
#   bash PACK/gpu_day.sh STAGE ...              there, in the order of the words; results in $OUT:
#       checks   what the CPU proves, on the device: the tests marked cuda             (LIMIT_CHECKS 100)
#       speed    step times, ordinary and recorded, each written as it is measured     (LIMIT_SPEED 85)
#       runs     whole runs by deadline, one training at a time, attacks beside the next (LIMIT_RUNS 440)
#
# For `runs`: ONLY=at-bsl-64,taet chooses jobs, EPOCHS=30 shortens them, WEIGHTS=at-bsl-64 brings a
# run's weights in parts, FLAGS are further flags of bench, ATTACKS and LAST other attacks. DEVICE is
# cuda, PYTHON python3, OUT ./out, WORK a scratch folder that further calls on the same machine go on
# with. Afterwards:
#
#   tar xzf out/runs.tar.gz && cp -r runs results/cifar10-lt/ && ltrobust report results/cifar10-lt
#
# `unfinished/` in the archive holds the curves of runs that did not end.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
WHEELS="pydantic pydantic-core annotated-types typing-inspection typing-extensions pyautoattack"
TESTING="pytest pytest-timeout pluggy iniconfig packaging pygments"

usage() { sed -n '2,18s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

pack() {
    local target=${1:?error: give the folder to pack into} cifar=${2:?error: give the folder of CIFAR-10}
    mkdir -p "$target/wheels" "$target/data"
    git -C "$here/.." archive --format=tar.gz -o "$(realpath "$target")/project.tar.gz" HEAD -- \
        ':(exclude)results' ':(exclude)docs'
    cp "$here/gpu_day.sh" "$target/"
    # shellcheck disable=SC2086
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 -d "$target/wheels" $WHEELS $TESTING
    "$python" -m pip wheel -q --no-deps -w "$target/wheels" "$here/.."
    cp -r "$cifar/." "$target/data/"
    du -sh "$target" | cut -f1
}

if [ $# -lt 1 ]; then
    usage
    exit 2
fi
if [ "$1" = pack ]; then
    shift
    pack "$@"
    exit
fi
for stage in "$@"; do
    case $stage in
        checks | speed | runs) ;;
        *)
            echo "error: unknown stage '$stage'; known: pack checks speed runs" >&2
            exit 2
            ;;
    esac
done

out=${OUT:-out}
work=${WORK:-$(mktemp -d)}
mkdir -p "$out" "$work"
out=$(realpath "$out") work=$(realpath "$work")
exec > >(tee -a "$out/log.txt") 2>&1
say() { echo "== $SECONDS s: $*"; }

project=$(realpath "$here/..")
if [ -f "$here/project.tar.gz" ]; then # a pack: unpack it, once
    project=$work/project
    if [ ! -f "$work/ready" ]; then
        mkdir -p "$project" "$work/site"
        tar -xzf "$here/project.tar.gz" -C "$project"
        "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" \
            "$here"/wheels/*.whl
        touch "$work/ready"
    fi
    export PYTHONPATH=$work/site LTROBUST_DATA_DIR=$here/data
fi
export PYTHONUNBUFFERED=1
device=${DEVICE:-cuda}
"$python" -c 'import torch, ltrobust; print(torch.__version__, torch.cuda.is_available())'
say "set up"
for stage in "$@"; do
    code=0
    case $stage in
        checks)
            (cd "$project" && timeout "${LIMIT_CHECKS:-100}" "$python" -m pytest -o addopts= -q -m cuda \
                -p no:cacheprovider tests/gpu) > "$out/checks.txt" || code=$?
            tail -n 30 "$out/checks.txt"
            ;;
        speed)
            timeout "$((${LIMIT_SPEED:-85} + 15))" "$python" "$project/benchmarks/speed/captured.py" \
                --device "$device" --seconds "${LIMIT_SPEED:-85}" --json "$out/speed.json" || code=$?
            ;;
        runs) # shellcheck disable=SC2086
            "$python" "$project/benchmarks/gpu/gpu_queue.py" --device "$device" --out "$out" \
                --work "$work" --seconds "${LIMIT_RUNS:-440}" ${ONLY:+--only "$ONLY"} \
                ${EPOCHS:+--epochs "$EPOCHS"} ${WEIGHTS:+--weights "$WEIGHTS"} \
                ${ATTACKS:+--attacks "$ATTACKS"} ${LAST:+--last "$LAST"} \
                -- ${FLAGS:-} || code=$?
            ;;
    esac
    say "$stage ended with code $code"
done
