"""Throughput of PyTorch on a GPU, the best of its ways to do a step of PGD adversarial training.

    python3 benches/peers/pytorch_cuda.py --network resnet18 --width 16 --batch 128 --steps 10

The step is that of pytorch_cpu.py, and the CSV that of `engine bench`: a line for each mode, the fastest first. A mode that
does not work is a line on stderr. `-graph` has the whole step, attack and update, in one CUDA graph; `bf16` is autocast to
bf16 with channels last; where it is compiled, an attack step is one graph of the compiler's, with the weights frozen.
f32 is f32: TF32 is off. `--device cpu` is for trying the script.
"""

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).parent))
from pytorch_cpu import COLUMNS, NETWORKS, Step, median_seconds  # noqa: E402

MODES = [
    layout + graph
    for layout in ("eager", "channels-last", "bf16", "compile", "compile-bf16")
    for graph in ("", "-graph")
]


def parse():
    parser = argparse.ArgumentParser(description="Images per second with PyTorch on a GPU.")
    parser.add_argument("--network", choices=[name.replace("_", "-") for name in NETWORKS], default="lenet")
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="steps of the attack on each batch")
    parser.add_argument("--repeat", type=int, default=10, help="steps timed; the median counts")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


class Graph:
    """A step, recorded once and replayed."""

    def __init__(self, step):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Compiles, and lets libraries take their workspaces, before anything is recorded.
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step()

    def __call__(self):
        self.graph.replay()


def seconds(mode, args):
    """Of a step, timed with all of it done."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    bf16 = "bf16" in mode
    layout = torch.channels_last if bf16 or "channels-last" in mode else torch.contiguous_format
    model = NETWORKS[args.network.replace("-", "_")](args.width).to(args.device, memory_format=layout)
    images = torch.rand(args.batch, *model.image, device=args.device).to(memory_format=layout)
    labels = torch.randint(10, (args.batch,), device=args.device)
    # The cache of casts would hand out weights of the recording.
    with torch.autocast(args.device, torch.bfloat16, enabled=bf16, cache_enabled=False):
        settings = SimpleNamespace(network=args.network, steps=args.steps, mode=mode)
        step = Step(model, images, labels, settings)
        run = Graph(step) if mode.endswith("-graph") else step

        def timed():
            run()
            if args.device == "cuda":
                torch.cuda.synchronize()

        return median_seconds(timed, SimpleNamespace(repeat=args.repeat, seconds=None))


def main():
    args = parse()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    lines = []
    for mode in args.modes:
        if args.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            took = seconds(mode, args)
        except Exception as error:  # Whatever one mode cannot do, the others are still to be tried.
            print(f"{mode}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        peak = f"{torch.cuda.max_memory_allocated() / 2**20:.1f}" if args.device == "cuda" else ""
        what = f"{args.network},{args.width},{args.batch},step,{args.steps},{mode},,{torch.__version__}"
        lines.append((took, f"{what},{args.batch / took:.1f},{took:.6f},{peak}"))
    if not lines:
        sys.exit("no mode works")
    print(COLUMNS)
    for _, line in sorted(lines):
        print(line)


if __name__ == "__main__":
    main()
