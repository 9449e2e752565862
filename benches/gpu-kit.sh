#!/usr/bin/env bash
# Makes a folder that runs on a Linux machine with an NVIDIA GPU and neither Rust nor network: the engine, its kernel tests with
# their recorded values, what the CPU computes for comparison, and predictions. There: `bash gpu-check.sh first`.
#
#   benches/gpu-kit.sh [--data DIR] [--store ARCHIVE] [--visits FILE] [KIT]      # target/gpu-kit unless said otherwise
#
# --visits names what is run there, instead of benches/gpu-visits.sh.
# For `gpu-check.sh results`, --data packs DIR, with mnist/ as `engine data fetch` leaves it and CIFAR-10 in either of its forms,
# and --store what an earlier visit brought back, results-store.tar.gz. The kernel tests then stay here, for there is no room.
set -euo pipefail
cd "$(dirname "$0")/.."

# MiB; with the repository a lent machine takes 64.
most=40
data="" store="" visits=benches/gpu-visits.sh kit=target/gpu-kit
while [ $# -gt 0 ]; do
    case $1 in
        --data | --store | --visits)
            if [ ! -e "${2:-}" ]; then echo "gpu-kit: $1: there is no '${2:-}'" >&2; exit 2; fi
            declare "${1#--}=$2"
            shift 2
            ;;
        -*) echo "gpu-kit: unknown option $1; the first lines of $0 name them" >&2; exit 2 ;;
        *) kit=$1; shift ;;
    esac
done

# The path of the program with the integration tests.
test_program() {
    cargo test --no-run --test all --message-format json |
        sed -n 's/.*"executable":"\([^"]*\/deps\/all-[^"]*\)".*/\1/p'
}

# pack PROGRAM NAME: into the kit. Most of a program is machine code for several architectures; gpu-check.sh unpacks it.
pack() {
    strip -o "$kit/$2" "$1"
    xz -1 -T0 "$kit/$2"
}

cargo build --release --quiet
engine=${CARGO_TARGET_DIR:-target}/release/engine
# Without kernels for it inside, the engine would need NVRTC over there.
if ! "$engine" doctor | grep -q '^kernels  embedded'; then
    echo "gpu-kit: this build has no kernels inside; install NVRTC and build again (engine doctor)" >&2
    exit 1
fi

rm -rf "$kit"
mkdir -p "$kit/benches/peers" "$kit/tests/oracle"
pack "$engine" engine
cp tests/oracle/networks.py "$kit/tests/oracle"
cp benches/peers/pytorch_c*.py "$kit/benches/peers"
cp benches/gpu-check.sh "$kit"
cp "$visits" "$kit/gpu-visits.sh"
git rev-parse HEAD > "$kit/commit"
# A model of the kernels made them, before any kernel had run on a GPU.
cp benches/predictions.csv "$kit"
if [ -n "$data" ]; then
    most=48
    cp -rL "$data" "$kit/data"
    chmod -R u+w "$kit/data"
    if [ -n "$store" ]; then cp "$store" "$kit/results-store.tar.gz"; fi
else
    . "$visits"
    # A test that has another name now would be missed on the GPU only.
    program=$(test_program)
    tests=$("$program" --list --format terse)
    for name in "${sanitized[@]}"; do
        if ! grep -qF "$name" <<< "$tests"; then echo "gpu-kit: $visits: there is no test '$name'" >&2; exit 1; fi
    done
    pack "$program" kernel-tests
    cp tests/oracle/*.safetensors "$kit/tests/oracle"
    # The table that gpu-check.sh runs on the GPU.
    "$engine" run "${table[@]}" --backend cpu --out "$kit/cpu" --quiet > /dev/null
    rm -r "$kit/cpu/store"
fi
size=$(du -sm "$kit" | cut -f 1)
repository=$(git ls-files -z | du -cm --files0-from=- | tail -n 1 | cut -f 1)
echo "$kit: $size MiB, with the repository $((size + repository))"
if [ "$size" -ge $most ]; then
    echo "gpu-kit: that is too much, $most MiB are the limit" >&2
    exit 1
fi
