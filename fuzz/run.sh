#!/bin/sh
# Fuzzes each reader of files that others have made: fuzz/run.sh [SECONDS=60]. Fails at the first crash, hang, or use of more
# than 512 MB. Needs `rustup toolchain install nightly` and `cargo install cargo-fuzz`. The seeds are fuzz/corpus; what is
# found beyond them goes to fuzz/found and is kept for the next run.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
targets=$(cargo +nightly fuzz list)
for target in $targets; do
    mkdir -p "fuzz/found/$target"
    echo "== $target"
    # Safe code: the address sanitizer would only slow it down.
    cargo +nightly fuzz run --sanitizer none "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -max_len=65536 -print_final_stats=1 -verbosity=0
done
