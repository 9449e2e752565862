"""The engine beside PyTorch on this machine's CPU: training steps under PGD, and forward passes.

    python3 -m venv target/peers && target/peers/bin/pip install -r tests/oracle/requirements.txt
    target/peers/bin/python benches/compare_cpu.py --out docs/bench/2026-11-24-epyc-2-cores/cpu.csv
    target/peers/bin/python benches/compare_cpu.py --only 'lenet-w1-*' --rounds 1 --out target/cpu.csv

Builds the engine and runs every case in rounds, in each of them the engine and PyTorch in turn, so that a change of the
machine's speed hits both. The first round has all of PyTorch's modes, the others only the fastest f32 one of the first.
Every measurement is a row of the CSV as soon as it is made; at the end, or after Ctrl-C, comes a table of it, which
`--table CSV` prints again. The column others_percent is the share of the cores that other work took meanwhile: it
should be near 0, since a thread that has to wait for a core slows PyTorch down far more than the engine.
"""

import argparse
import csv
import datetime
import fnmatch
import importlib.metadata
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
PEER = ROOT / "benches" / "peers" / "pytorch_cpu.py"
ENGINE = ROOT / "target" / "release" / "engine"
# The likely fastest first.
F32_MODES = ("compile-channels-last", "channels-last", "compile", "eager")
COLUMNS = (
    "round,network,width,batch,task,attack_steps,mode,threads,version,images_per_second,seconds,peak_mib,others_percent"
).split(",")


@dataclass(frozen=True)
class Case:
    network: str
    width: int
    batch: int
    attack_steps: int = 0  # 0: a forward pass
    target: float | None = None  # engine / fastest f32 mode of PyTorch

    @property
    def name(self):
        return f"{self.network}-w{self.width}-b{self.batch}" + ("" if self.attack_steps else "-forward")

    @property
    def flags(self):
        task = ["--steps", str(self.attack_steps)] if self.attack_steps else ["--forward"]
        return ["--network", self.network, "--width", str(self.width), "--batch", str(self.batch), *task]


# Width: targets at batch 50 and 512.
LENET = {1: (20, 15), 2: (12, 12), 4: (5, 5), 8: (2, 2), 16: (1.5, 1.5)}
RESNET18 = {1: 3, 4: 1.3, 16: 1}
CASES = [
    *(Case("lenet", w, batch, 40, target) for w in LENET for batch, target in zip((50, 512), LENET[w], strict=True)),
    *(Case("resnet18", w, 128, 10, target) for w, target in RESNET18.items()),
    *(Case("lenet", w, 512) for w in LENET),
    *(Case("resnet18", w, 128) for w in RESNET18),
]


def parse():
    parser = argparse.ArgumentParser(description="The engine beside PyTorch on this machine's CPU.")
    parser.add_argument("--out", type=Path, help="the CSV to write")
    parser.add_argument("--table", type=Path, metavar="CSV", help="print the table of a CSV and do nothing else")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and do nothing else")
    parser.add_argument("--only", action="append", metavar="CASE", help="a name, * for any text; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", type=Path, help="binary to time; default: target/release/engine, built before")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one a core")
    parser.add_argument("--seconds", type=int, default=2, help="of timed steps, of which there are at least two")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which a mode of PyTorch is given up")
    args = parser.parse_args()
    args.cases = [case for case in CASES if any(fnmatch.fnmatch(case.name, only) for only in args.only or ["*"])]
    if not args.cases:
        parser.error("--only: no such case; --list shows them")
    if not (args.out or args.table or args.list):
        parser.error("--out: where to?")
    if args.out and args.out.exists():
        parser.error(f"--out: {args.out} exists")
    return args


def machine(args):
    """What decided the numbers, in a line: processor, PyTorch, commit, date."""
    text = subprocess.run(["lscpu"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in cpu.get("Flags", "").split()]
    caches = [f"{level} {cpu[f'{level} cache']}" for level in ("L1d", "L2", "L3") if f"{level} cache" in cpu]
    # A virtual machine may hide the full name; family and model tell the generation.
    model = f"{cpu.get('Model name')}, family {cpu.get('CPU family')}, model {cpu.get('Model')}"

    def git(*command):
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--", "src", "Cargo.lock") else ""
    built = "an engine built elsewhere" if args.engine else f"commit {git('rev-parse', '--short', 'HEAD')}{changed}"
    torch = f"PyTorch {importlib.metadata.version('torch')}"
    today = datetime.date.today().isoformat()
    return "; ".join([model, f"{os.cpu_count()} cores", " ".join(flags), *caches, torch, built, today])


def busy_elsewhere():
    """Seconds that the cores have worked so far, for others than what this program has run; None if unknown."""
    try:
        ticks = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, ticks)
    own = os.times()
    total = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return total - own.children_user - own.children_system


def measure(mode, case, args):
    """The row of a program for `case`: the engine's, or PyTorch's in `mode`. None if there is none."""
    engine = [str(args.engine or ENGINE), "bench", "--backend", "cpu"]
    program = engine if mode == "engine" else [sys.executable, str(PEER), "--mode", mode]
    bounds = ["--threads", str(args.threads), "--repeat", "1000", "--seconds", str(args.seconds)]
    begin, busy = time.perf_counter(), busy_elsewhere()
    try:
        done = subprocess.run([*program, *case.flags, *bounds], capture_output=True, text=True, timeout=args.limit)
    except subprocess.TimeoutExpired:
        print(f"{case.name} {mode}: given up after {args.limit:.0f} s", file=sys.stderr)
        return None
    if done.returncode:
        why = (done.stderr.strip() or "no message").splitlines()[-1]
        print(f"{case.name} {mode}: ended with {done.returncode}: {why}", file=sys.stderr)
        return None
    row = next(csv.DictReader(done.stdout.splitlines()))
    if busy is not None:
        share = (busy_elsewhere() - busy) / (time.perf_counter() - begin) / os.cpu_count()
        row["others_percent"] = f"{max(100 * share, 0):.0f}"
    return row


def rounds(case, args):
    """Every row of a case, as soon as it is there."""
    modes = (*F32_MODES, "bf16")
    for number in range(1, args.rounds + 1):
        speed = {}
        for mode in ("engine", *modes):
            row = measure(mode, case, args)
            if row:
                speed[mode] = float(row["images_per_second"])
                yield {"round": number, **row}
        modes = sorted(speed.keys() & set(F32_MODES), key=speed.get)[-1:]


def table(rows):
    """Markdown, a line a case."""
    lines = [
        "| case | engine, images/s | PyTorch's best f32 mode | images/s | ratio (min–max) | to bf16 | target | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        key = [case.network, str(case.width), str(case.batch), str(case.attack_steps)]
        speed, peak = {}, {}
        for row in rows:
            if [row[column] for column in ("network", "width", "batch", "attack_steps")] == key:
                speed.setdefault(row["mode"], {})[row["round"]] = float(row["images_per_second"])
                peak[row["mode"]] = max(peak.get(row["mode"], 0), float(row["peak_mib"] or 0))
        engine = speed.pop("engine", {})
        # Of a round both are in; the fastest mode is in most.
        ratios = {mode: [engine[n] / speed[mode][n] for n in engine if n in speed[mode]] for mode in speed}
        f32 = [mode for mode in F32_MODES if ratios.get(mode)]
        if not f32:
            continue
        best = min(f32, key=lambda mode: ratios[mode][0])
        bf16 = f"{ratios['bf16'][0]:.2f}" if ratios.get("bf16") else ""
        lines.append(
            f"| {case.name} | {median(engine.values()):,.0f} | {best} | {median(speed[best].values()):,.0f} "
            f"| {median(ratios[best]):.2f} ({min(ratios[best]):.2f}–{max(ratios[best]):.2f}) | {bf16} "
            f"| {case.target or ''} | {peak['engine']:.0f} / {peak[best]:.0f} |"
        )
    others = [int(row["others_percent"]) for row in rows if row.get("others_percent")]
    if others:
        lines += ["", f"Other work took {median(others):.0f} % of the cores in the median, {max(others)} % at most."]
    return "\n".join(lines)


def run(args):
    if not args.engine:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("x", buffering=1) as out:
        print(f"# {machine(args)}", file=out)
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        try:
            for case in args.cases:
                for row in rounds(case, args):
                    writer.writerow(row)
                    print(case.name, *(row[column] for column in ("round", "mode", "images_per_second")), file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)


def main():
    args = parse()
    if args.list:
        print("\n".join(case.name for case in args.cases))
        return
    if not args.table:
        run(args)
    with (args.table or args.out).open() as text:
        print(table(list(csv.DictReader(line for line in text if not line.startswith("#")))))


if __name__ == "__main__":
    main()
