"""The engine beside PyTorch on this machine's CPU: training steps under PGD, and forward passes.

    python3 -m venv target/peers && target/peers/bin/pip install -r tests/oracle/requirements.txt
    target/peers/bin/python benches/compare_cpu.py --out docs/bench/2026-11-24-epyc-2-cores/cpu.csv
    target/peers/bin/python benches/compare_cpu.py --only 'lenet-w1-*' --rounds 1 --out target/cpu.csv

Builds the engine and runs every case in rounds, in each of them the engine and PyTorch in turn, so that a change of the
machine's speed hits both. The first round has all of PyTorch's modes, the others only its fastest in f32 and of all.
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
MODES = (*F32_MODES, "bf16")
COLUMNS = (
    "round,network,width,batch,task,attack_steps,mode,threads,version,images_per_second,seconds,peak_mib,others_percent"
).split(",")


@dataclass(frozen=True)
class Case:
    network: str
    width: int
    batch: int
    attack_steps: int = 0  # 0: a forward pass
    targets: tuple[float, float] | None = None  # engine / PyTorch's fastest mode in f32, and of all

    @property
    def name(self):
        return f"{self.network}-w{self.width}-b{self.batch}" + ("" if self.attack_steps else "-forward")

    @property
    def flags(self):
        task = ["--steps", str(self.attack_steps)] if self.attack_steps else ["--forward"]
        return ["--network", self.network, "--width", str(self.width), "--batch", str(self.batch), *task]


# Width: targets at the batch that the paper trains with.
LENET = {1: (15, 15), 2: (9, 8), 4: (4.5, 3.5), 8: (3, 2), 16: (2.2, 1.2)}
RESNET18 = {1: (5, 5), 4: (1.8, 1.3), 16: (1.7, 1)}
CASES = [
    *(Case("lenet", w, 64, 40, targets) for w, targets in LENET.items()),
    *(Case("resnet18", w, 128, 10, targets) for w, targets in RESNET18.items()),
    *(Case("lenet", w, batch, 40) for w in LENET for batch in (50, 512)),
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
    modes = MODES
    for number in range(1, args.rounds + 1):
        speed = {}
        for mode in ("engine", *modes):
            row = measure(mode, case, args)
            if row:
                speed[mode] = float(row["images_per_second"])
                yield {"round": number, **row}
        if number == 1:
            best = [max(speed.keys() & set(among), key=speed.get, default=None) for among in (F32_MODES, MODES)]
            modes = [mode for mode in dict.fromkeys(best) if mode]


def table(rows):
    """Markdown, a line a case. Memory: the engine, and the best mode of PyTorch in f32 and, if another, of all."""
    side = "images/s | ratio (min–max) | target"
    lines = [
        f"| case | engine, images/s | best f32 mode | {side} | best of all modes | {side} | peak MiB |",
        f"|{'---|' * 11}",
    ]
    lines += filter(None, (line(case, rows) for case in CASES))
    others = [int(row["others_percent"]) for row in rows if row.get("others_percent")]
    if others:
        lines += ["", f"Other work took {median(others):.0f} % of the cores in the median, {max(others)} % at most."]
    return "\n".join(lines)


def line(case, rows):
    """The case's line of the table; None if the engine and a mode in f32 have no round in common."""
    key = [case.network, str(case.width), str(case.batch), str(case.attack_steps)]
    speed, peak = {}, {}
    for row in rows:
        if [row[column] for column in ("network", "width", "batch", "attack_steps")] == key:
            speed.setdefault(row["mode"], {})[row["round"]] = float(row["images_per_second"])
            peak[row["mode"]] = max(peak.get(row["mode"], 0), float(row["peak_mib"] or 0))
    engine = speed.pop("engine", {})
    # Of the rounds that both are in.
    ratios = {mode: {n: engine[n] / of[n] for n in engine.keys() & of.keys()} for mode, of in speed.items()}
    f32 = [mode for mode in F32_MODES if ratios.get(mode)]
    if not f32:
        return None
    best_f32 = fastest(f32, ratios)
    best = best_f32, fastest([best_f32, "bf16"] if ratios.get("bf16") else [best_f32], ratios)

    def side(mode, target):
        of = ratios[mode].values()
        low, middle, high = min(of), median(of), max(of)
        return f"{mode} | {median(speed[mode].values()):,.0f} | {middle:.2f} ({low:.2f}–{high:.2f}) | {target}"

    sides = " | ".join(side(*each) for each in zip(best, case.targets or ("", ""), strict=True))
    peaks = " / ".join(f"{peak[mode]:.0f}" for mode in ("engine", *dict.fromkeys(best)))
    return f"| {case.name} | {median(engine.values()):,.0f} | {sides} | {peaks} |"


def fastest(modes, ratios):
    """The one of `modes` with the lowest ratio, in the rounds that all are in: most are in the first alone."""
    common = set.intersection(*(set(ratios[mode]) for mode in modes))
    return min(modes, key=lambda mode: median(ratios[mode][n] for n in common))


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
