#!/usr/bin/env bash
# One PGD adversarial training step with the engine and with PyTorch, in turn, so that a change of the machine's speed
# hits both; CSV on standard output. PYTHON is a Python with PyTorch:
#
#   python3 -m venv target/peers && target/peers/bin/pip install -r tests/oracle/requirements.txt
#   PYTHON=target/peers/bin/python benches/compare_cpu.sh 3 --network lenet --width 1 --batch 50
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:?usage: benches/compare_cpu.sh ROUNDS [options of both programs]}
shift
threads=$(nproc)
cargo build --release --quiet

for round in $(seq "$rounds"); do
    {
        target/release/engine bench --threads "$threads" "$@"
        "${PYTHON:-python3}" benches/peers/pytorch_cpu.py --threads "$threads" "$@" | tail -n +2
    } | if [ "$round" = 1 ]; then cat; else tail -n +2; fi
done
