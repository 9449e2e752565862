#!/usr/bin/env bash
# Rehearses what gpu-check.sh does on a GPU, without one: the kit's own programs run on a stand-in for NVIDIA's driver, behind
# which are the kernels compiled for the host, and small doubles take the place of nvidia-smi, compute-sanitizer, ncu and the
# PyTorch peer. So a minute on a GPU is never spent on a fault of the script. Planted are a kernel test that hangs, one that
# crashes, a mode of PyTorch that fails, a finding of a sanitizer, convolutions that are wrong, and a visit that is killed.
#
#   benches/gpu-rehearsal.sh [DIR]      # target/gpu-rehearsal unless said otherwise; exits with 1 if anything is not as it must be
set -euo pipefail
cd "$(dirname "$0")/.."

dir=$(realpath -m "${1:-target/gpu-rehearsal}")
rm -rf "$dir"
mkdir -p "$dir/bin" "$dir/driver" "$dir/brought-back"
# Smaller sizes: the host needs seconds where a GPU needs milliseconds.
cat benches/gpu-visits.sh - > "$dir/visits.sh" <<'VISITS'
rehearsal=yes
first=(tests:40 bytes:60 speed:40 kernels:40 tune:60 pytorch:30)
second=(tests:40 bytes:60 sanitizers:40 ratios:40 tune_narrow:60 table:30 ncu:50)
processes=2
test_seconds=6
sanitized=(ops::recorded::cuda::relu)
small=(--table b1 --profile smoke --seeds 1 --train-images 60 --test-images 20 --set batch=20 --set held_out=10
    --set attack.steps=1 --set eval_attack.steps=1)
trained=("${small[@]}" --cells kaiming_normal:adam --epochs 1)
table=("${trained[@]}")
speed=("f32 lenet 1 2 1" "bf16 lenet 1 2 1")
kernels=("f32 lenet 1 2 1" "bf16 resnet18 1 1 1")
tune=("bf16 lenet 1 2 1")
tune_narrow=("bf16 lenet-cifar 1 2 1")
pytorch=("lenet 1 2 1")
ratios=("lenet 1 2 1")
profiled=("bf16 resnet18 1 1 1" correlate_bf16 "f32 lenet 1 2 1" lenet_attack)
b1=("${small[@]}" --epochs 1)
b1_cells=(kaiming_normal:adam)
a1=("${small[@]}" --epochs 1000)
a1_cells=(kaiming_normal:adam)
VISITS
benches/gpu-kit.sh --visits "$dir/visits.sh" "$dir/kit"
STAND_IN_DIR=$dir/driver cargo test --quiet --test all -- --ignored --exact cli::gpu::stand_in_for_the_rehearsal
xz -d "$dir/kit/kernel-tests.xz"
mv "$dir/kit/kernel-tests" "$dir/kit/real-kernel-tests"

# --- Doubles

double() {
    printf '#!/usr/bin/env bash\n' > "$1"
    cat >> "$1"
    chmod +x "$1"
}

double "$dir/bin/nvidia-smi" <<'DOUBLE'
echo "Stand-in GPU, 580.159.04, 81559 MiB, 1980 MHz"
DOUBLE

# Runs the program behind its options. PLANT says which tool finds something.
double "$dir/bin/compute-sanitizer" <<'DOUBLE'
while [[ $1 == --* ]]; do
    case $1 in
        --tool) tool=$2 ;;
        --report-api-errors) api_errors=$2 ;;
        --error-exitcode) found=$2 ;;
    esac
    shift 2
done
echo "========= COMPUTE-SANITIZER"
"$@" || exit
if [ "${api_errors:-}" != no ]; then
    echo "========= Program hit CUDA_ERROR_INVALID_VALUE (error 1) due to \"invalid argument\" on CUDA API call to cuFuncGetParamInfo."
    echo "========= ERROR SUMMARY: 123 errors"
    exit "$found"
elif [ "${PLANT:-}" = "$tool" ]; then
    echo "========= Uninitialized __global__ memory read of size 4 bytes"
    echo "=========     at planted+0x10"
    echo "========= ERROR SUMMARY: 1 error"
    exit "$found"
elif [ "$tool" = racecheck ]; then
    echo "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
else
    echo "========= ERROR SUMMARY: 0 errors"
fi
DOUBLE

double "$dir/bin/ncu" <<'DOUBLE'
while [[ $1 == --* ]]; do
    if [ "$1" = --kernel-name ]; then kernel=${2#regex:^}; fi
    shift 2
done
"$@" > /dev/null || exit
echo "  ${kernel%$} (64, 1, 1)x(128, 1, 1), Context 1, Stream 7, Device 0, CC 9.0"
cat <<'REPORT'
    Section: GPU Speed Of Light Throughput
    ----------------------- ----------- ------------
    Metric Name             Metric Unit Metric Value
    ----------------------- ----------- ------------
    Memory Throughput                 %        42.00
    Duration                         us        17.50
    Compute (SM) Throughput           %        61.00
    ----------------------- ----------- ------------
REPORT
DOUBLE

# Real tests, and planted ones.
double "$dir/kit/kernel-tests" <<'DOUBLE'
real=$(dirname "$0")/real-kernel-tests
case "$*" in
    *--list*)
        printf '%s: test\n' ops::recorded::cuda::relu prune::selection::cuda::nan_is_refused ops::recorded::cuda::cross_entropy \
            planted::cuda::hangs planted::cuda::crashes
        if [ "${PLANT:-}" = convolutions ]; then echo "planted::cuda::conv2d: test"; fi
        ;;
    *planted::cuda::hangs*) trap '' TERM; for _ in {1..300}; do sleep 1; done ;;
    *planted::cuda::crashes*) kill -SEGV $$ ;;
    *planted::cuda::conv2d*)
        printf "\nrunning 1 test\nthread 'planted::cuda::conv2d' (7) panicked at tests/planted.rs:1:2:\ny: 3 of 9 differ\n"
        printf "test result: FAILED. 0 passed; 1 failed\n"
        exit 101
        ;;
    *) exec "$real" "$@" ;;
esac
DOUBLE

cat > "$dir/kit/benches/peers/pytorch_cuda.py" <<'DOUBLE'
import sys

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "--ceilings" in sys.argv:
    print("ceiling,copies,0.01 TB/s\nceiling,bf16 products,0.1 TFLOP/s")
elif options["--modes"] == "compile-bf16-model-graph":
    sys.exit("compile-bf16-model-graph: RuntimeError: planted")
else:
    print("network,width,batch,task,attack_steps,mode,threads,version,images_per_second,seconds,peak_mib")
    step = ",".join(options[f"--{name}"] for name in ("network", "width", "batch"))
    print(f"{step},step,{options['--steps']},{options['--modes']},,2.11.0,1000.0,0.002,10.0")
DOUBLE

# --- Visits

export PATH=$dir/bin:$PATH LD_LIBRARY_PATH=$dir/driver STAND_IN_KERNELS=$dir/driver/libkernels.so ENGINE_NVRTC=none
wrong=0

# expect FILE PATTERN: a line of the file matches.
expect() {
    if ! grep -qE -- "$2" "$1"; then
        echo "WRONG: no line '$2' in $1"
        wrong=$((wrong + 1))
    fi
}

# visit NAME PLANT ARGUMENT...: what it prints goes to DIR/NAME.txt, what it brings back to DIR/brought-back/NAME.
visit() {
    local name=$1
    export PLANT=$2
    shift 2
    mkdir -p "$dir/brought-back/$name"
    printf '\n== rehearsal: %s\n' "$name"
    OUT=$dir/brought-back/$name setsid bash "$dir/kit/gpu-check.sh" "$@" > "$dir/$name.txt" 2>&1 || true
    sed -n '/^== summary/,$p' "$dir/$name.txt"
}

# brought_back NAME FILE: of the archive of a visit.
brought_back() { tar xzOf "$dir/brought-back/$1/"gpu-check-*.tar.gz "$2"; }

visit first '' first
expect "$dir/first.txt" '^TIMEOUT +planted::cuda::hangs .*not done in 6 s'
expect "$dir/first.txt" '^FAILED +planted::cuda::crashes .*killed by signal 11'
expect "$dir/first.txt" '^3 of 5 kernel tests pass'
expect "$dir/first.txt" '^FAILED +pytorch-lenet-w1-compile-bf16-model-graph .*RuntimeError: planted'
expect "$dir/first.txt" '^ok +bytes-f32 .*the same'
expect "$dir/first.txt" '^ok +bytes-bf16 .*the same'
expect "$dir/first.txt" '^pytorch +failed'
expect "$dir/first.txt" '^bf16 lenet .* of serial, .* of PyTorch'
visit second initcheck second
expect "$dir/second.txt" '^FAILED +initcheck .*Uninitialized __global__ memory read of size 4 bytes; ERROR SUMMARY: 1 error'
expect "$dir/second.txt" '^ok +racecheck .*0 hazards'
expect "$dir/second.txt" '^ok +table-agreement .*2 numbers'
expect "$dir/second.txt" '^ok +ncu-lenet-w1'
# Cut short, with what is done.
BUDGET=25 visit results '' results
expect "$dir/results.txt" '^ok +b1-kaiming_normal-adam'
expect "$dir/results.txt" '^TIMEOUT +a1-kaiming_normal-adam .*interrupted; the state is saved'
if [ ! -s "$dir/brought-back/results/results-store.tar.gz" ]; then echo "WRONG: no store to go on with"; wrong=$((wrong + 1)); fi
for name in first second results; do
    if [ "$(sed -n '/^== summary/,$p' "$dir/$name.txt" | wc -l)" -gt 60 ]; then echo "WRONG: the summary of $name is long"; wrong=$((wrong + 1)); fi
    expect <(brought_back $name visit.txt) '^ended: whole'
    seconds=$(brought_back $name visit.txt | sed -n 's/^seconds: //p')
    budget=$(brought_back $name visit.txt | sed -n 's/^budget: //p')
    if [ "$seconds" -gt "$budget" ]; then echo "WRONG: $name took $seconds s of $budget"; wrong=$((wrong + 1)); fi
done
# No time for anything.
BUDGET=9 visit parts '' b1 a1
expect "$dir/parts.txt" '^SKIPPED +b1 .*no time left in the visit'
# Killed in the memcheck of what failed, which takes the place of all timings.
visit killed convolutions first &
until grep -q '^== memcheck' "$dir/killed.txt" 2> /dev/null || ! kill -0 $!; do sleep 0.2; done
session=$(pgrep -o -f "bash $dir/kit/gpu-check.sh")
# Until nobody is left who could have started another.
while pkill -KILL -s "$session"; do sleep 0.1; done
wait
expect <(brought_back killed checks.csv) '^tests,"planted::cuda::conv2d",FAILED,.*y: 3 of 9 differ'
expect <(brought_back killed visit.txt) '^ended: cut short after bytes'
expect "$dir/killed.txt" '^== memcheck'

# --- The page

page=$dir/page
python3 benches/gpu-page.py --out "$page" "$dir"/brought-back/{first,second,results}/gpu-check-*.tar.gz
# Every section, and that it was no GPU.
for pattern in 'no GPU was involved' 'planted::cuda::hangs.*TIMEOUT' 'planted::cuda::crashes.*FAILED' 'initcheck.*FAILED' \
    '\| f32 \|.*same \|' '\| bf16 \|.*same \|' '2 numbers, mean distance' 'lenet w=1 batch 2 PGD-1 f32 .*channels-last-graph' \
    '^## PyTorch and ceilings' '`lenet_attack`' '^## Tiles' 'ncu-lenet-w1.txt .*17.50 us' 'results/b1/table.md'; do
    expect "$page"/*/README.md "$pattern"
done

if [ $wrong -gt 0 ]; then echo "$wrong things went wrong; what was printed is in $dir"; exit 1; fi
echo "the rehearsal went as it must"
