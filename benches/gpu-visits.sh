# The runs of gpu-check.sh on a GPU; bash. gpu-kit.sh packs this file, gpu-rehearsal.sh has smaller sizes.

# Seconds of each visit, of parts that are called by name, and of each part.
declare -A budgets=([first]=300 [second]=330 [results]=420 [parts]=300)
first=(tests:60 bytes:30 speed:50 kernels:25 tune:25 pytorch:85)
second=(tests:20 bytes:20 sanitizers:97 ratios:110 tune_narrow:25 table:20 ncu:20)
results=(b1:200 a1:200)
# Of a part that is called by name.
part_seconds=120

processes=8
test_seconds=60
# Tests that run under compute-sanitizer, which is slow: of the kernels with the most barriers, asynchronous copies and sums over
# blocks. Each is a part of a test's name; gpu-kit.sh checks that there is such a test.
sanitized=(bf16::cuda::every_tile bf16::cuda::convolutions bf16::cuda::deferred_activations lenet::cuda::the_same_images
    selection::cuda::selects_exactly_k)
# The training whose models are compared byte by byte; the table that is compared with the CPU's, which gpu-kit.sh has computed.
trained=(--table t4 --profile smoke --cells 4:dense,4:1,16:dense --train-images 200 --test-images 20)
table=(--table t2 --profile smoke)
# Training steps: precision, network, width, batch, steps of the attack.
speed=("bf16 resnet18 16 128 10" "f32 resnet18 16 128 10" "f32 lenet 1 64 40" "bf16 resnet18 1 128 10" "f32 lenet 16 64 40"
    "bf16 lenet 16 64 40" "f32 resnet18 1 128 10")
kernels=("bf16 resnet18 16 128 10" "bf16 resnet18 1 128 10" "f32 lenet 1 64 40")
tune=("bf16 resnet18 16 128 1")
tune_narrow=("bf16 resnet18 8 128 1" "bf16 resnet18 4 128 1" "bf16 resnet18 1 128 1")
pytorch=("resnet18 16 128 10")
pytorch_modes=(bf16-model-graph channels-last-graph compile-bf16-model-graph eager-graph compile-graph)
ratios=("lenet 1 64 40" "lenet 16 64 40" "resnet18 1 128 10" "resnet18 8 128 10")
profiled=("bf16 resnet18 16 128 10" correlate_bf16 "f32 lenet 1 64 40" lenet_attack)
# Cells of a table that are run together.
b1=(--table b1 --profile quick --data data)
b1_cells=("uniform:*" "kaiming_normal:*" "xavier_uniform:*" "xavier_normal:*" "kaiming_uniform:*" "orthogonal:*" "normal:*")
a1=(--table a1 --profile quick --epochs 10 --data data)
a1_cells=("2:dense,2:1" "4:dense,4:1" "8:dense,8:1" "16:dense,16:1")

# A rehearsal without a GPU says so everywhere.
rehearsal=no
