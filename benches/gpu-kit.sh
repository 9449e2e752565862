#!/usr/bin/env bash
# Makes a folder that runs on a Linux machine with an NVIDIA GPU and neither Rust nor network: the engine, its kernel tests
# with their recorded values, a profiler's and a user's way in. There: `bash gpu-check.sh`, which writes to `out/`.
#
#   benches/gpu-kit.sh [DIR]      # target/gpu-kit unless said otherwise; under 64 MiB
set -euo pipefail
cd "$(dirname "$0")/.."

kit=${1:-target/gpu-kit}
cargo build --release --quiet
tests=$(cargo test --release --no-run --test all --message-format json |
    sed -n 's/.*"executable":"\([^"]*\/deps\/all-[^"]*\)".*/\1/p')

rm -rf "$kit"
mkdir -p "$kit/tests/oracle" "$kit/benches/peers"
cp target/release/engine "$kit/engine"
cp "$tests" "$kit/kernel-tests"
strip --strip-debug "$kit/engine" "$kit/kernel-tests"
cp tests/oracle/*.safetensors tests/oracle/networks.py "$kit/tests/oracle"
cp benches/peers/pytorch_c*.py "$kit/benches/peers"
cp benches/gpu-check.sh "$kit"

# Without kernels for it inside, the engine would need NVRTC over there.
if ! "$kit/engine" doctor | grep -q '^kernels  embedded'; then
    echo "gpu-kit: this build has no kernels inside; install NVRTC and build again (engine doctor)" >&2
    exit 1
fi
git rev-parse HEAD > "$kit/commit"
# Most of both is machine code for several architectures; gpu-check.sh unpacks them.
gzip "$kit/engine" "$kit/kernel-tests"
du -sh "$kit"
