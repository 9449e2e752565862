#!/usr/bin/env bash
# Checks the engine on an NVIDIA GPU, from the folder that gpu-kit.sh makes: is it right, where is it wrong, how fast is it,
# what is next? A GPU is lent for minutes, so a visit has a budget in seconds, its parts come in the order of what they teach,
# and nothing that hangs or crashes takes more than itself down.
#
#   bash gpu-check.sh first      # kernel tests, bytes of trained models, speed, kernels, tiles, PyTorch
#   bash gpu-check.sh second     # kernel tests again, compute-sanitizer, more of PyTorch, tiles, a table, Nsight Compute
#   bash gpu-check.sh results    # runs worth keeping, which go on where the last call stopped
#   bash gpu-check.sh PART...    # parts by name: tests bytes speed kernels tune pytorch memcheck sanitizers ratios
#                                # tune_narrow table ncu b1 a1
#
# gpu-visits.sh says what is run and for how long. Results go to out/ and, where OUT names a folder, after every part into one
# archive there. Other variables: BUDGET (seconds of the visit), TESTS (an extended regular expression: only these kernel tests),
# F32_MODE and BF16_MODE (PyTorch's modes in `ratios`: the fastest of the first visit). The last thing printed is a summary. The
# exit code is 1 if anything failed or was not done. gpu-page.py makes a page of the archives.
set -uo pipefail
cd "$(dirname "$0")" || exit 2
export LC_ALL=C CARGO_MANIFEST_DIR=$PWD ENGINE_SKIPS="compiler data nvdisasm nvrtc processor system" RUST_BACKTRACE=0

. ./gpu-visits.sh

# --- Checks

# note CHECK OUTCOME SECONDS DETAIL: a line in out/checks.csv, and one for the reader unless it is a test that passes.
note() {
    printf '%s,"%s",%s,%s,"%s"\n' "$part" "$1" "$2" "$3" "${4//\"/\'}" >> out/checks.csv
    if [ "$part $2" != "tests ok" ]; then printf '%-8s %s (%s s)%s\n' "$2" "$1" "$3" "${4:+: $4}"; fi
}

# said FILE...: what a program had to say, in a line: the panic of a test, a sanitizer's first finding and its summary, or the last
# line.
said() {
    cat "$@" 2> /dev/null | awk '
        NF { last = $0 }
        /panicked at/ && panic == "" {
            sub(/.*panicked at /, ""); panic = $0; getline; panic = panic " " $0
            if ($0 ~ /^assertion/) { getline; panic = panic $0; getline; panic = panic $0 }
        }
        /^=========/ && !/COMPUTE-SANITIZER|SUMMARY/ && finding == "" { finding = substr($0, 11) "; " }
        /^=========.*SUMMARY/ { summary = substr($0, 11) }
        END {
            text = panic != "" ? panic : summary != "" ? finding summary : last
            gsub(/[[:space:]]+/, " ", text)
            print substr(text, 1, 240)
        }'
}

# check NAME SECONDS COMMAND...: runs it, for so long at most and not beyond the end of its part; what it prints goes to
# out/NAME.txt and out/NAME.err.
check() {
    local name=$1 limit=$2 begin=$SECONDS file=out/${1//::/.} left=$((part_end - SECONDS)) code outcome detail=
    shift 2
    if [ "$left" -lt "$limit" ]; then limit=$left; fi
    if [ "$limit" -lt 1 ]; then note "$name" SKIPPED 0 "no time left"; return 1; fi
    timeout ${foreground:-} -k 5 "$limit" "$@" > "$file.txt" 2> "$file.err"
    code=$?
    case $code in
        0) outcome=ok ;;
        124 | 137) outcome=TIMEOUT detail="not done in $limit s" ;;
        13[0-9] | 14[0-9]) outcome=FAILED detail="killed by signal $((code - 128))" ;;
        *) outcome=FAILED ;;
    esac
    case $outcome$(tail -n 6 "$file.txt") in
        ok*" 0 passed"*) outcome=SKIPPED detail="no such test, or one that is ignored" ;;
        ok*" SUMMARY: "* | FAILED* | TIMEOUT*) detail=${detail:+$detail; }$(said "$file.txt" "$file.err") ;;
    esac
    detail=${detail%; }
    note "$name" $outcome $((SECONDS - begin)) "$detail"
    [ $outcome = ok ]
}

# side_by_side COMMAND ARGUMENT...: runs it for every argument, so many processes at a time.
side_by_side() {
    local command=$1 argument running=()
    shift
    for argument in "$@"; do
        while running=($(jobs -rp)) && [ ${#running[@]} -ge $processes ]; do wait -n; done
        "$command" $argument &
    done
    wait
}

# there PROGRAM: whether it can be run; a line if not.
there() {
    command -v "$1" > /dev/null || { note "$1" SKIPPED 0 "$1 is not here"; return 1; }
}

bench() {
    local precision=$1 network=$2 width=$3 batch=$4 steps=$5 name=$6 limit=$7
    shift 7
    check "$name" "$limit" ./engine bench --backend cuda --precision "$precision" --network "$network" --width "$width" \
        --batch "$batch" --steps "$steps" "$@"
}

# --- Parts

# A test in a process of its own.
one_test() { check "$1" $test_seconds ./kernel-tests --exact "$1"; }

part_tests() {
    ./kernel-tests --list --format terse ::cuda:: 2> out/list.err | sed -n 's/: test$//p' | grep -E "${TESTS:-.}" > out/list.txt
    if [ ! -s out/list.txt ]; then note list FAILED 0 "no kernel tests: $(said out/list.err)"; return; fi
    side_by_side one_test $(cat out/list.txt)
    printf '%s of %s kernel tests pass\n' "$(grep -c '^tests,.*,ok,' out/checks.csv)" "$(wc -l < out/list.txt)"
}

# Trains with one seed, in so many ways; how launches are submitted must not change a bit. The only check that sees a race between
# launches that overlap.
train() {
    ENGINE_CUDA=$2 check "train-$1-$2" 60 ./engine run "${trained[@]}" --backend cuda --precision "$1" --jobs 1 --quiet \
        --out "out/trained/$1-$2" --fresh
}

part_bytes() {
    local precision submission sum sums whole
    echo "precision,submission,models,sha256" > out/bytes.csv
    side_by_side train "f32 graphs" "f32 serial" "f32 single" "bf16 graphs" "bf16 serial" "bf16 single"
    for precision in f32 bf16; do
        sums="" whole=0
        for submission in graphs serial single; do
            sum=$(cd "out/trained/$precision-$submission/store" 2> /dev/null && sha256sum -- */model.safetensors | sha256sum | cut -c 1-16)
            if [ -z "$sum" ] || ! grep -q "^bytes,\"train-$precision-$submission\",ok" out/checks.csv; then continue; fi
            whole=$((whole + 1)) sums+="$submission $sum "
            echo "$precision,$submission,$(ls "out/trained/$precision-$submission/store"/*/model.safetensors | wc -l),$sum" >> out/bytes.csv
        done
        if [ "$(grep "^$precision," out/bytes.csv | cut -d, -f3,4 | sort -u | wc -l)" -gt 1 ]; then
            note "bytes-$precision" FAILED 0 "models differ: $sums"
        elif [ $whole -lt 3 ]; then
            note "bytes-$precision" FAILED 0 "only $whole of 3 trainings to compare"
        else
            note "bytes-$precision" ok 0 "the same: $sums"
        fi
    done
}

# append CSV FILE: the line of a file behind those that are there, which have its head already.
append() { if [ -s "$1" ]; then tail -n 1 "$2"; else cat "$2"; fi >> "$1"; }

# time_step SUBMISSION PRECISION NETWORK WIDTH BATCH STEPS: a line in out/speed.csv.
time_step() {
    local submission=$1 name
    shift
    name="bench-$2-w$3-$1-$submission"
    ENGINE_CUDA=$submission bench "$@" "$name" 15 --repeat 20 --seconds 3 &&
        append out/speed.csv <(paste -d, <(printf 'precision,submission\n%s\n' "$1,$submission") "out/$name.txt")
}

part_speed() {
    local step
    for step in "${speed[@]}"; do
        time_step graphs $step
        time_step serial $step
    done
}

time_kernels() {
    local name="kernels-$2-w$3-$1"
    bench "$@" "$name" 20 --kernels && mv "out/$name.txt" "out/$name.csv" && head -n 6 "out/$name.csv" | cut -c 1-120
}

part_kernels() {
    local step
    for step in "${kernels[@]}"; do time_kernels $step; done
}

tune() {
    local step
    for step in "$@"; do
        set -- $step
        bench $step "tune-$2-w$3" 60 --tune out/tiles.csv
    done
}

part_tune() { tune "${tune[@]}"; }
part_tune_narrow() { tune "${tune_narrow[@]}"; }

# peer SECONDS MODE NETWORK WIDTH BATCH STEPS: PyTorch's step in a mode, a line in out/pytorch.csv.
peer() {
    local name="pytorch-$3-w$4-$2"
    check "$name" "$1" python3 benches/peers/pytorch_cuda.py --network "$3" --width "$4" --batch "$5" --steps "$6" --modes "$2" &&
        append out/pytorch.csv "out/$name.txt"
}

part_pytorch() {
    local step mode
    check ceilings 40 python3 benches/peers/pytorch_cuda.py --ceilings && tee -a out/ceilings.csv < out/ceilings.txt
    for step in "${pytorch[@]}"; do
        for mode in "${pytorch_modes[@]}"; do peer 60 "$mode" $step; done
    done
}

# The engine beside PyTorch, in turn: f32 beside its best f32 mode, bf16 beside its best of all.
part_ratios() {
    local step
    for step in "${ratios[@]}"; do
        time_step graphs f32 $step
        time_step graphs bf16 $step
        peer 40 "${BF16_MODE:-bf16-model-graph}" $step
        peer 40 "${F32_MODE:-channels-last-graph}" $step
    done
}

# sanitize TOOL NAME TEST...: on tests with launches one by one, so that a finding names its kernel. The driver is asked for each
# kernel's parameters until it refuses, and such refusals are not to be reported.
sanitize() {
    local tool=$1 name=$2
    shift 2
    ENGINE_CUDA=single check "$name" 95 compute-sanitizer --tool "$tool" --report-api-errors no --print-limit 20 --error-exitcode 9 \
        ./kernel-tests "$@" --test-threads 1
}

sanitizer_is_here() {
    PATH=$PATH:/usr/local/cuda/bin
    there compute-sanitizer
}

sanitized_by() { sanitize "$1" "$1" "${sanitized[@]}"; }

part_sanitizers() { sanitizer_is_here && side_by_side sanitized_by memcheck racecheck synccheck initcheck; }

failed_tests() { sed -n 's/^tests,"\([^"]*\)",\(FAILED\|TIMEOUT\),.*/\1/p' out/checks.csv; }

memcheck_of() { sanitize memcheck "memcheck-$1" --exact "$1"; }

# The tests that failed.
part_memcheck() { sanitizer_is_here && side_by_side memcheck_of $(failed_tests); }

# Mean and largest distance of the two backends' accuracies, cell by cell, of which none may be missing; chaotic training makes
# single cells differ, so only the mean is held to a limit, in points.
agree() {
    awk -F, -v limit=5 '
        FNR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; next }
        $col["seed"] == "mean" { next }
        { key = $col["method"] "," $col["init"] "," $col["optimizer"] "," $col["original_w"] "," $col["pruned_w"] "," $col["seed"] }
        NR == FNR { natural[key] = $col["natural"]; adversarial[key] = $col["adversarial"]; numbers += 2; next }
        key in natural && $col["natural"] $col["adversarial"] ~ /^[0-9.]+$/ {
            for (which = 0; which < 2; which++) {
                d = which ? $col["adversarial"] - adversarial[key] : $col["natural"] - natural[key]
                if (d < 0) d = -d
                sum += d; n++
                if (d > worst) { worst = d; where = key }
            }
        }
        END {
            if (n == 0 || n < numbers) { printf "only %d of %d numbers to compare\n", n, numbers; exit 1 }
            printf "%d numbers, mean distance %.2f points, largest %.2f%s\n", n, sum / n, worst, where ? " (" where ")" : ""
            exit !(sum / n <= limit)
        }' "$1" "$2"
}

part_table() {
    local outcome=ok
    check table-cuda 60 ./engine run "${table[@]}" --backend cuda --out out/cuda --fresh --quiet || return
    agree cpu/*/table.csv out/cuda/*/table.csv > out/tables.txt || outcome=FAILED
    note table-agreement $outcome 0 "$(cat out/tables.txt)"
}

# The slowest launch of each kernel that is looked at.
part_ncu() {
    local step kernel times precision network width batch
    there ncu || return
    set -- "${profiled[@]}"
    while [ $# -gt 1 ]; do
        step=$1 kernel=$2
        shift 2
        read -r precision network width batch _ <<< "$step"
        times=out/kernels-$network-w$width-$precision.csv
        [ -s "$times" ] || time_kernels $step > /dev/null
        kernel=$(grep "^$kernel" "$times" | head -n 1 | cut -d, -f1)
        ENGINE_CUDA=single check "ncu-$network-w$width" 20 ncu --set basic --kernel-name "regex:^$kernel\$" --launch-count 1 \
            ./engine bench --backend cuda --precision "$precision" --network "$network" --width "$width" --batch "$batch" --steps 1 --repeat 1
    done
}

# worth_keeping TABLE CELLS... -- ARGUMENTS...: group by group, as long as there is time; the table of those that are done.
worth_keeping() {
    local name=$1 cells=() done=() group
    shift
    while [ "$1" != -- ]; do cells+=("$1"); shift; done
    shift
    set -- ./engine run "$@" --backend cuda --out out/results --quiet
    # A second signal ends a run before it has saved, and timeout sends one to the process and one to its group.
    for group in "${cells[@]}"; do
        foreground=--foreground check "$name-${group//[^a-z0-9_-]/-}" 600 "$@" --cells "$group" && done+=("$group")
    done
    if [ ${#done[@]} -gt 0 ]; then
        # Costs nothing: every stage is there. The tables of the groups, and that of an earlier call, are parts of this one.
        rm -rf "out/results/$name"
        "$@" --name "$name" --cells "$(IFS=,; echo "${done[*]}")" > "out/$name.txt" && cat "out/$name.txt"
        rm -rf "out/results/$name-"*
    fi
}

part_b1() { worth_keeping b1 "${b1_cells[@]}" -- "${b1[@]}"; }

part_a1() {
    if [ -f data/cifar10_from_jpeg.py ] && [ ! -d data/cifar-10-batches-bin ]; then
        check cifar10-from-jpeg 60 python3 data/cifar10_from_jpeg.py data || return
    fi
    worth_keeping a1 "${a1_cells[@]}" -- "${a1[@]}"
}

# --- The visit

# Whether a test of convolutions, of matrix products, of bf16 or of whole networks failed: then the times of steps mean nothing.
convolutions_fail() { failed_tests | grep -qE 'conv|bf16|products|models'; }

visit_file() {
    {
        printf 'visit: %s\ncommit: %s\ndate: %s\n' "$visit" "$(cat commit)" "$(date +%F)"
        awk -F', ' '{ printf "gpu: %s\ndriver: %s\nmemory: %s\n", $1, $2, $3; exit }' out/nvidia-smi.txt
        printf 'seconds: %s\nbudget: %s\nended: %s\n' $SECONDS "$budget" "$1"
        echo "rehearsal: $rehearsal"
    } > out/visit.txt
}

# pack ENDED: out/ as an archive, so that a visit that is killed has lost a part at most.
pack() {
    visit_file "$1"
    summary > out/summary.txt
    [ -n "${OUT:-}" ] || return 0
    tar czf "$OUT/.archive" --exclude store --exclude trained --exclude '*.err' -C out $(ls out) && mv "$OUT/.archive" "$OUT/gpu-check-$visit.tar.gz"
    # The stages that `results` goes on with, if they are small enough to be brought back.
    if [ -d out/results/store ] && [ "$(du -sm out/results/store | cut -f 1)" -lt 16 ]; then
        tar czf "$OUT/.archive" -C out results/store && mv "$OUT/.archive" "$OUT/results-store.tar.gz"
    fi
}

# run_parts PART:SECONDS...: in this order; what a part leaves of its time the next ones have.
run_parts() {
    local entry begin before outcome
    for entry in "$@"; do
        part=${entry%:*} begin=$SECONDS before=$(wc -l < out/checks.csv)
        planned=$((planned + ${entry#*:})) part_end=$planned
        if [ $part_end -gt "$visit_end" ]; then part_end=$visit_end; fi
        outcome=ok
        if [ $((part_end - SECONDS)) -lt 2 ]; then
            outcome=skipped
            note "$part" SKIPPED 0 "no time left in the visit"
        else
            printf '\n== %s, %d s\n' "$part" $((part_end - SECONDS))
            "part_$part"
            if tail -n +$((before + 1)) out/checks.csv | grep -qE ',(FAILED|TIMEOUT),'; then outcome=failed; fi
            if tail -n +$((before + 1)) out/checks.csv | grep -q '"no time left"'; then outcome="cut short"; fi
        fi
        echo "$part,$outcome,$((SECONDS - begin)),${entry#*:}" >> out/parts.csv
        pack "cut short after $part"
    done
}

# Ratios of what was timed: f32 beside PyTorch's best f32 mode, bf16 beside its best of all modes.
ratios_of() {
    awk -F, '
        FILENAME ~ /pytorch/ {
            step = $1 "," $2 "," $3 "," $5
            if (!($6 ~ /bf16/) && $9 > best["f32," step]) { best["f32," step] = $9; mode["f32," step] = $6 }
            if ($9 > best["bf16," step]) { best["bf16," step] = $9; mode["bf16," step] = $6 }
            next
        }
        FNR == 1 { next }
        {
            key = $1 "," $3 "," $4 "," $5 "," $7
            if ($2 == "serial") serial[key] = $11; else { ours[key] = $11; order[++n] = key }
        }
        END {
            for (i = 1; i <= n; i++) {
                key = order[i]
                if (key in shown) continue
                shown[key] = 1
                split(key, k, ",")
                printf "%-4s %-8s w=%-2s batch %-3s %9.0f images/s", k[1], k[2], k[3], k[4], ours[key]
                if (serial[key] > 0) printf ", %.2f of serial", ours[key] / serial[key]
                if (best[key] > 0) printf ", %.2f of PyTorch (%s)", ours[key] / best[key], mode[key]
                print ""
            }
        }' out/speed.csv out/pytorch.csv
}

# Under sixty lines.
summary() {
    printf '\n== summary: %s visit, %s, commit %.10s, %s s of %s%s\n' "$visit" "$(cut -d, -f1 out/nvidia-smi.txt | head -n 1)" \
        "$(cat commit)" $SECONDS "$budget" "$([ $rehearsal = yes ] && echo ', a REHEARSAL without a GPU')"
    grep -h '^launches' out/doctor.txt
    tail -n +2 out/parts.csv | awk -F, '{ printf "%-11s %-9s %3d s of %3d\n", $1, $2, $3, $4 }'
    ratios_of | head -n 12
    awk -F'"' '
        NR == 1 || $3 ~ /^,ok,/ { next }
        $3 ~ /^,SKIPPED,/ { sub(/,/, ": ", $1); skipped[$1 $4]++; next }
        {
            split($3, outcome, ",")
            if (++n <= 30) printf "%s  %s: %.150s\n", outcome[2], $2, $4
        }
        END {
            if (n > 30) printf "and %d more in checks.csv\n", n - 30
            for (why in skipped) if (++m <= 5) printf "SKIPPED  %d of %s\n", skipped[why], why
        }' out/checks.csv
    if tail -n +2 out/checks.csv | grep -qvE '",ok,'; then echo "NOT all green"; else echo "all green"; fi
}

# Keeps a context open, so that the driver stays loaded and other processes start fast, and imports PyTorch, which takes tens of
# seconds the first time.
keep_context() {
    exec python3 -c '
import ctypes, time
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
cuda.cuInit(0)
cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
try:
    import torch
except ImportError:
    pass
time.sleep(1200)' > /dev/null 2>&1
}

# Where there is no xz, there is PyTorch's Python.
unpack() {
    xz -dk "$1.xz" 2> /dev/null || python3 -c '
import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1] + ".xz"), open(sys.argv[1], "wb"))' "$1"
    chmod +x "$1"
}

prepare() {
    mkdir -p out ${OUT:+"$OUT"}
    # All that an earlier visit has left but the stages of `results`.
    find out -mindepth 1 -maxdepth 1 ! -name results -exec rm -r {} +
    for program in engine kernel-tests; do
        if [ ! -f $program ] && [ -f $program.xz ]; then unpack $program; fi
    done
    # The store of an earlier visit.
    if [ -f results-store.tar.gz ]; then tar xzf results-store.tar.gz -C out --skip-old-files; fi
    echo "part,check,outcome,seconds,detail" > out/checks.csv
    echo "part,outcome,seconds,budget" > out/parts.csv
    touch out/speed.csv out/pytorch.csv
    cp predictions.csv out/
    part=machine part_end=$((SECONDS + 25))
    check nvidia-smi 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
    check doctor 20 ./engine doctor
    cat out/nvidia-smi.txt out/doctor.txt
    planned=$SECONDS
}

visit=${1:-}
case $visit in
    first | second | results) ;;
    *)
        if [ -z "$visit" ]; then sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; fi
        for part in "$@"; do
            if ! declare -F "part_$part" > /dev/null; then echo "gpu-check: there is no part '$part'; the first lines of $0 name them" >&2; exit 2; fi
        done
        visit=parts parts=("${@/%/:$part_seconds}")
        ;;
esac
budget=${BUDGET:-${budgets[$visit]}}
case $budget in *[!0-9]*) echo "gpu-check: BUDGET=$budget is no number of seconds" >&2; exit 2 ;; esac
# A program that does not heed the first signal takes five seconds more.
visit_end=$((budget - 8))
keep_context &
context=$!
trap 'kill $context 2> /dev/null' EXIT
disown $context
prepare
case $visit in
    first)
        run_parts "${first[@]:0:2}"
        if convolutions_fail; then run_parts memcheck:$((visit_end - SECONDS)); else run_parts "${first[@]:2}"; fi
        ;;
    second) run_parts "${second[@]}" ;;
    results) run_parts "${results[@]}" ;;
    parts) run_parts "${parts[@]}" ;;
esac
pack whole
cat out/summary.txt
grep -q '^all green' out/summary.txt
