"""Throughput of PyTorch on the CPU: whole steps of PGD adversarial training, as the engine's `train` does them.

    python benches/peers/pytorch_cpu.py --network lenet --width 1 --batch 50 --attack-steps 40 --threads 2

One step is a random start, all attack steps (parameters frozen, so no weight gradient; batch statistics, running ones
left alone) and one SGD step. Prints one CSV line per mode; images/s counts training images, not attack passes.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "oracle"))
from networks import NETWORKS, cross_entropy, freeze_running_stats, pgd_step  # noqa: E402

MODES = ("eager", "channels-last", "compile")


def parse():
    parser = argparse.ArgumentParser(description="Images per second of PGD adversarial training with PyTorch.")
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--attack-steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--warmup", type=int, default=2, help="steps not timed")
    parser.add_argument("--repeats", type=int, default=7, help="steps timed; the median is printed")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a mode is given up")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    return parser.parse_args()


def train_step(model, forward, optimizer, clean, labels, args):
    """`forward` is `model`, or its compiled form."""
    eps, step_size = (0.3, 0.01) if args.network == "lenet" else (8 / 255, 2 / 255)
    model.requires_grad_(False)
    freeze_running_stats(model)
    x = (clean + torch.empty_like(clean).uniform_(-eps, eps)).clamp(0.0, 1.0)
    for _ in range(args.attack_steps):
        x, _ = pgd_step(forward, cross_entropy, x, labels, clean, eps, step_size)
    model.requires_grad_(True)
    freeze_running_stats(model, False)
    optimizer.zero_grad()
    cross_entropy(forward(x), labels).mean().backward()
    optimizer.step()


def measure(mode, args):
    """Median seconds of a step."""
    torch.manual_seed(0)
    model = NETWORKS[args.network](args.width).train()
    clean, labels = torch.rand(args.batch, *model.image), torch.randint(10, (args.batch,))
    if mode == "channels-last":
        model, clean = (t.to(memory_format=torch.channels_last) for t in (model, clean))
    forward = torch.compile(model) if mode == "compile" else model
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4)
    seconds = []
    for _ in range(args.warmup + args.repeats):
        begin = time.perf_counter()
        train_step(model, forward, optimizer, clean, labels, args)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[args.warmup :])


def worker(mode, args, result):
    torch.set_num_threads(args.threads)
    try:
        result.put(measure(mode, args))
    except torch._dynamo.exc.TorchDynamoException as error:
        # Inductor needs a C++ compiler; without one the other modes still count.
        result.put(f"{type(error).__name__}: {str(error).splitlines()[0]}")


def measure_apart(mode, args):
    """`measure` in a process of its own, which can be ended. A string instead of seconds says what went wrong.

    With PyTorch 2.15 on an AVX2 processor, compiled ResNet-18 at w=1 does not return from the weight gradient of its
    first 1x1 convolution (stride 2, 4 to 8 channels, channels-last): oneDNN's `jit_avx2_1x1_convolution_bwd_weights`.
    """
    context = multiprocessing.get_context("spawn")
    result = context.SimpleQueue()
    process = context.Process(target=worker, args=(mode, args, result))
    process.start()
    process.join(args.limit)
    if process.is_alive():
        process.kill()
        return f"not done after {args.limit} s"
    return f"exit code {process.exitcode}" if result.empty() else result.get()


def main():
    args = parse()
    print("network,width,batch,attack_steps,mode,threads,version,images_per_second,seconds_per_step", flush=True)
    measured = 0
    for mode in args.modes:
        seconds = measure_apart(mode, args)
        if isinstance(seconds, str):
            print(f"{mode}: {seconds}", file=sys.stderr)
            continue
        measured += 1
        case = f"{args.network},{args.width},{args.batch},{args.attack_steps},{mode},{args.threads},{torch.__version__}"
        print(f"{case},{args.batch / seconds:.1f},{seconds:.4f}", flush=True)
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main())
