#!/usr/bin/env bash
# Everything that only a GPU can show, from the folder that gpu-kit.sh makes: kernel tests on the device, compute-sanitizer on
# them, the smoke profile of every table beside the CPU's, throughput of the training steps beside PyTorch's, time, TFLOP/s and
# TB/s of each kernel, and the fastest tile of each convolution (out/tiles.csv, for src/backend/cuda/mixed/tuned/).
# Writes to out/ and to the terminal; exits with 1 if anything failed.
#
#   bash gpu-check.sh [tests] [sanitizer] [tables] [speed] [kernels] [tune]      # all six unless named
set -uo pipefail
cd "$(dirname "$0")"
mkdir -p out
for program in engine kernel-tests; do
    if [ -f $program.gz ]; then gunzip -f $program.gz; fi
done
export CARGO_MANIFEST_DIR=$PWD ENGINE_REQUIRE_CUDA=1
parts=${*:-tests sanitizer tables speed kernels tune}
failed=()

part() { [[ " $parts " == *" $1 "* ]] && printf '\n== %s\n' "$1"; }
check() {
    local name=$1
    shift
    if "$@" > "out/$name.txt" 2>&1; then echo "ok      $name"; else echo "FAILED  $name (out/$name.txt)"; failed+=("$name"); fi
}

{ cat commit; nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv; ./engine doctor; } | tee out/machine.txt

if part tests; then
    check kernel-tests ./kernel-tests ::cuda::
    grep -E '^test result' out/kernel-tests.txt
fi

if part sanitizer; then
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null)
    if [ -z "$sanitizer" ]; then
        echo "FAILED  compute-sanitizer is not here"
        failed+=(sanitizer)
    else
        # One launch at a time, so that a finding names its kernel; the op tests launch every kernel.
        for tool in memcheck racecheck synccheck initcheck; do
            ENGINE_CUDA=single check "$tool" "$sanitizer" --tool "$tool" --error-exitcode 9 \
                ./kernel-tests ::cuda:: --skip steps --skip models --skip training --test-threads 1
            grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "out/$tool.txt"
        done
    fi
fi

# Mean and largest distance of the two backends' accuracies, cell by cell; chaotic training makes single cells differ, so
# only the mean is held to a limit, in points.
agree() {
    awk -F, -v limit=5 '
        FNR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; next }
        $col["seed"] == "mean" { next }
        { key = $col["method"] "," $col["init"] "," $col["optimizer"] "," $col["original_w"] "," $col["pruned_w"] "," $col["seed"] }
        NR == FNR { natural[key] = $col["natural"]; adversarial[key] = $col["adversarial"]; next }
        key in natural {
            for (which = 0; which < 2; which++) {
                d = which ? $col["adversarial"] - adversarial[key] : $col["natural"] - natural[key]
                sum += d < 0 ? -d : d; n++
                if (d < 0) d = -d
                if (d > worst) { worst = d; where = key }
            }
        }
        END {
            if (n == 0) { print "no cell in common"; exit 1 }
            printf "%d numbers, mean distance %.2f points, largest %.2f (%s)\n", n, sum / n, worst, where
            exit sum / n > limit
        }' "$1" "$2"
}

if part tables; then
    for table in a1 b1 c1 fashion t2 t3 t4; do
        check "$table-cuda" ./engine run --table "$table" --profile smoke --backend cuda --out out/cuda --fresh
        check "$table-cpu" ./engine run --table "$table" --profile smoke --backend cpu --out out/cpu --fresh
        check "$table-agreement" agree "out/cpu/$table-smoke/table.csv" "out/cuda/$table-smoke/table.csv"
        cat "out/$table-agreement.txt"
    done
    # The ensemble on a network of table 2, on both.
    model=$(ls out/cpu/store/*/model.safetensors | head -n 1)
    for backend in cuda cpu; do
        check "autoattack-$backend" ./engine attack --sample --attack autoattack --n 200 --model "$model" --backend $backend \
            --out "out/autoattack-$backend"
        grep -E '^(apgd|fab|square|adversarial|pass|FAIL)' "out/autoattack-$backend.txt"
    done
    # What is to come back is small.
    rm -rf out/cuda/store out/cpu/store
fi

# The engine's step in both precisions and PyTorch's, one after the other; the best of those of PyTorch's modes counts that can be
# fastest: without a graph they only lose. What is compiled takes a minute each, so the cases come in the order of their
# importance, and stop after SPEED_SECONDS.
SPEED_SECONDS=${SPEED_SECONDS:-540}
beside_pytorch() {
    local network=$1 width=$2 batch=$3 steps=$4 left=$((SPEED_SECONDS - SECONDS)) theirs precision ours serial
    if [ "$left" -lt 30 ]; then
        echo "SKIP    $network w=$width batch $batch: no time left (SPEED_SECONDS=$SPEED_SECONDS)"
        return
    fi
    local modes=(compile-bf16-graph bf16-model-graph compile-bf16-model-graph bf16-graph compile-graph eager-graph)
    local step=(--network "$network" --width "$width" --batch "$batch" --steps "$steps")
    theirs=$(python3 benches/peers/pytorch_cuda.py "${step[@]}" --modes "${modes[@]}" --budget $((left < 180 ? left : 180)) \
        2>> out/speed.log | tail -n +2 | tee -a out/pytorch.csv | sort -t, -k9,9gr | head -n 1)
    for precision in f32 bf16; do
        ours=$(./engine bench --backend cuda --precision $precision --repeat 20 "${step[@]}" 2>> out/speed.log | tail -n 1)
        echo "$ours" >> out/speed.csv
        serial=$(ENGINE_CUDA=serial ./engine bench --backend cuda --precision $precision --repeat 20 "${step[@]}" 2>> out/speed.log | tail -n 1)
        echo "$serial" >> out/speed-serial.csv
        if [ -z "$ours" ]; then
            echo "FAILED  $network w=$width batch $batch in $precision (out/speed.log)"
            failed+=("speed of $network w=$width")
        elif [ -z "$theirs" ]; then
            echo "$network w=$width batch $batch $precision: $(cut -d, -f9 <<< "$ours") images/s; PyTorch did not run (out/speed.log)"
        else
            echo "$ours,$theirs" | awk -F, -v precision=$precision -v serial="$(cut -d, -f9 <<< "$serial")" '{
                printf "%s w=%s batch %s %s: %s images/s (%s without overlap), PyTorch %s (%s), ratio %.2f\n",
                    $1, $2, $3, precision, $9, serial, $20, $17, $9 / $20
            }'
        fi
    done
}

if part speed; then
    SECONDS=0
    python3 benches/peers/pytorch_cuda.py --ceilings 2>> out/speed.log | tee out/ceilings.csv
    python3 benches/peers/pytorch_cuda.py --topk --width 16 2>> out/speed.log | tee -a out/ceilings.csv
    for width in 16 8 4; do beside_pytorch resnet18 $width 128 10; done
    for width in 1 16; do beside_pytorch lenet $width 64 40; done
    for width in 2 1; do beside_pytorch resnet18 $width 128 10; done
    beside_pytorch resnet18 16 512 10
    for width in 2 4 8; do beside_pytorch lenet $width 64 40; done
    cat out/speed.log
fi

# What each kernel of a step takes, beside the ceilings of the same device: what to look at next.
if part kernels; then
    [ -s out/ceilings.csv ] || python3 benches/peers/pytorch_cuda.py --ceilings > out/ceilings.csv 2>> out/speed.log
    cat out/ceilings.csv
    for width in 16 8 4 1; do
        check "kernels-resnet18-w$width" ./engine bench --backend cuda --precision bf16 --network resnet18 --width $width \
            --batch 128 --steps 10 --kernels
        head -n 12 "out/kernels-resnet18-w$width.txt"
    done
    for width in 1 16; do
        check "kernels-lenet-w$width" ./engine bench --backend cuda --network lenet --width $width --batch 64 --steps 40 --kernels
        head -n 12 "out/kernels-lenet-w$width.txt"
    done
fi

# One step of an attack and the update have every convolution in every direction.
if part tune; then
    for width in 16 8 4 2 1; do
        check "tune-resnet18-w$width" ./engine bench --backend cuda --precision bf16 --network resnet18 --width $width \
            --batch 128 --steps 1 --tune out/tiles.csv
    done
    check tune-resnet18-w16-512 ./engine bench --backend cuda --precision bf16 --network resnet18 --width 16 --batch 512 \
        --steps 1 --tune out/tiles.csv
    for width in 4 8 16; do
        check "tune-lenet-w$width" ./engine bench --backend cuda --precision bf16 --network lenet --width $width --batch 64 \
            --steps 1 --tune out/tiles.csv
    done
    cut -d, -f1,10 out/tiles.csv | sort | uniq -c
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nFAILED: %s\n' "${failed[*]}"
    exit 1
fi
printf '\nall green\n'
