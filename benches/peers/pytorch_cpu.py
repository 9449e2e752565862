"""Throughput of PyTorch on the CPU: steps of PGD adversarial training as the engine's `train` has them, forward passes.

    target/peers/bin/python benches/peers/pytorch_cpu.py --network lenet --width 1 --batch 64 --mode channels-last

One step is a random start, all attack steps (gradient of the images alone; batch statistics, running ones left alone)
and one SGD step. `--forward` times the logits of a batch in evaluation mode instead, without a gradient. The options
are those of `engine bench`, and so is the CSV: one line for the mode; images/s counts training images, not attack
passes. benches/compare_cpu.py runs every mode beside the engine.
"""

import argparse
import ctypes
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "oracle"))
from networks import NETWORKS, cross_entropy, pgd_step  # noqa: E402

COLUMNS = "network,width,batch,task,attack_steps,mode,threads,version,images_per_second,seconds,peak_mib"
# Every mode that is fastest somewhere, or that one would ask about. Automatic tuning of the matrix products, a C++
# wrapper around the compiled graph and oneDNN switched off were tried and gain nothing beyond a few per cent.
MODES = ("compile-channels-last", "channels-last", "compile", "eager", "bf16")


def parse():
    parser = argparse.ArgumentParser(description="Images per second with PyTorch.")
    parser.add_argument("--network", choices=[name.replace("_", "-") for name in NETWORKS], default="lenet")
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, default=40, help="steps of the attack on each batch")
    parser.add_argument("--forward", action="store_true", help="time a forward pass instead of a training step")
    parser.add_argument("--repeat", type=int, default=7, help="steps or passes timed, at most; the median counts")
    parser.add_argument("--seconds", type=float, help="stop when the timed ones have taken this long, not before two")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--mode", choices=MODES, default="channels-last")
    return parser.parse_args()


class Step:
    """A training step."""

    def __init__(self, model, images, labels, args):
        self.model, self.images, self.labels = model.train(), images, labels
        self.attack_steps = args.steps
        self.eps, self.step_size = (0.3, 0.01) if args.network == "lenet" else (8 / 255, 2 / 255)
        self.optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, fused=True)
        # The update of the weights stays as it is: compiled, it takes longer (oneDNN's weight gradient of a strided 1x1
        # convolution with few channels is slow in the layout chosen, and on AVX2 it does not return at all).
        self.attack_step = self.plain_step
        if args.mode.startswith("compile"):
            self.attack_step = torch.compile(self.whole_step, fullgraph=True)

    def plain_step(self, x):
        return pgd_step(self.model, cross_entropy, x, self.labels, self.images, self.eps, self.step_size)[0]

    def whole_step(self, x):
        """As `plain_step`, and a single graph when compiled: passes, gradient of the images, update, projection."""
        dx = torch.func.grad(lambda x: cross_entropy(self.model(x), self.labels).sum())(x)
        moved = x + self.step_size * dx.sign()
        return moved.clamp(self.images - self.eps, self.images + self.eps).clamp(0.0, 1.0)

    def attacking(self, on):
        """No gradient of the weights, and batch statistics that leave the running ones alone; or both again."""
        self.model.requires_grad_(not on)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = not on

    def __call__(self):
        self.attacking(True)
        x = (self.images + torch.empty_like(self.images).uniform_(-self.eps, self.eps)).clamp(0.0, 1.0)
        for _ in range(self.attack_steps):
            x = self.attack_step(x)
        self.attacking(False)
        self.optimizer.zero_grad()
        cross_entropy(self.model(x), self.labels).mean().backward()
        self.optimizer.step()


class Forward:
    """A forward pass of evaluation."""

    def __init__(self, model, images, args):
        self.model, self.images = model.eval(), images
        if args.mode.startswith("compile"):
            # Weights are constants then: folded into those of the batch normalisation, and packed beforehand.
            self.model = torch.compile(self.model, fullgraph=True, options={"freezing": True})

    @torch.inference_mode()
    def __call__(self):
        self.model(self.images)


def keep_memory():
    """Makes glibc keep what is freed for the next activations: fresh pages cost a tenth of a step, half of a pass."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        trim_threshold, mmap_max = -1, -4
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)


def median_seconds(step, args):
    """The rule of `engine bench`: the first two steps do not count, or one if it took more than a second."""
    seconds, timed = [], []
    while len(timed) < args.repeat and not (args.seconds and len(timed) >= 2 and sum(timed) >= args.seconds):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
        timed = seconds[1 if seconds[0] > 1.0 else 2 :]
    return statistics.median(timed)


def peak_mib():
    """Most memory this process ever had resident, where the system says so. `getrusage` would include its parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return ""
    return next((f"{int(line.split()[1]) / 1024:.1f}" for line in lines if line.startswith("VmHWM:")), "")


def main():
    args = parse()
    keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # What is compiled is compiled once, in the first step: nothing that changes may make it stale.
    torch._dynamo.config.error_on_recompile = True
    torch._inductor.config.compile_threads = 1  # no workers that stay beside the timed steps
    layout = torch.channels_last if args.mode.endswith(("channels-last", "bf16")) else torch.contiguous_format
    model = NETWORKS[args.network.replace("-", "_")](args.width).to(memory_format=layout)
    images = torch.rand(args.batch, *model.image).to(memory_format=layout)
    labels = torch.randint(10, (args.batch,))
    step = Forward(model, images, args) if args.forward else Step(model, images, labels, args)
    with torch.autocast("cpu", torch.bfloat16, enabled=args.mode == "bf16"):
        seconds = median_seconds(step, args)
    task = "forward,0" if args.forward else f"step,{args.steps}"
    print(COLUMNS)
    print(
        f"{args.network},{args.width},{args.batch},{task},{args.mode},{args.threads},{torch.__version__},"
        f"{args.batch / seconds:.1f},{seconds:.6f},{peak_mib()}"
    )


if __name__ == "__main__":
    main()
