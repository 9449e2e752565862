"""A page of measurements from what visits to a GPU brought back: docs/bench/<date>-<gpu>/README.md and the raw files beside it.

    python3 benches/gpu-page.py gpu-check-first.tar.gz gpu-check-second.tar.gz
    python3 benches/gpu-page.py --out target/pages --force target/gpu-kit/out

An archive is what benches/gpu-check.sh wrote, or the folder that it was packed from. Archives of one GPU go on one page, each line
with the visit that it is from. No number on the page is typed by hand. The page says what a visit did not bring back; an archive that
cannot be read is one line on stderr, exit code 2, and no page. The folder has the date of the first visit, so a page of two visits takes
the place of one of the first with `--force`. The path of the page is printed.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path, PurePosixPath
from statistics import median

from gpu_archive import DASH, EXPECTED, Page, Problem, code, digits, number, percent, ratio, read, times

ROOT = Path(__file__).parents[1]
SUBMISSIONS = ("graphs", "serial", "single")
# Parts of a visit under compute-sanitizer.
SANITIZERS = ("memcheck", "sanitizers")
PASSES = ("forward", "input_gradient", "weight_gradient")
# Lines shown of a file that has more.
MOST = 12
# The output of Nsight Compute: a kernel with its grid, then metrics with unit and value.
LAUNCH = re.compile(r"\s+(\S.*?)\s*\(\d+, \d+, \d+\)x\(\d+, \d+, \d+\)")
METRIC = re.compile(r"\s+(Duration|Memory Throughput|Compute \(SM\) Throughput)\s+(%|[num]?s\w*)\s+([\d.,]+)")


def short_commit(info):
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]{33}\b", r"\1", info.get("commit", DASH))


def header(page):
    commits = list(dict.fromkeys(short_commit(visit.info) for visit in page.visits))
    named = f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    lines = [f"# {f'Rehearsal on {page.gpu}' if page.rehearsal else page.gpu}, {page.date}, {named}", ""]
    if page.rehearsal:
        lines += [
            "**This is a rehearsal on kernels compiled for the host: no GPU was involved, and every time means nothing.**",
            "",
        ]
    if len(commits) > 1:
        lines += ["The visits ran different commits: mind which visit a line is from.", ""]
    for visit in page.visits:
        if (ended := visit.info.get("ended", "its end is not noted")) != "whole":
            lines += [
                f"**The visit `{visit.label}` is not whole: {ended}.** What is missing is said in its place.",
                "",
            ]
    keys = ["date", "gpu", "driver", "memory", "seconds", "budget", "ended"]
    rows = [(visit.label, [short_commit(visit.info), *(visit.info.get(key, "") for key in keys)]) for visit in page.visits]
    return lines + page.table("", ["commit", *keys], rows)


def checks(page, which):
    """Every outcome of the checks for which `which(part, outcomes)` holds."""
    found = {}
    for row in page.data["checks.csv"]:
        found.setdefault((row["part"], row["check"]), []).append(row)
    chosen = (rows for (part, _), rows in found.items() if which(part, {row["outcome"] for row in rows}))
    return [(row["visit"], [row["part"], row["check"], row["outcome"], code(row["detail"])]) for rows in chosen for row in rows]


def same_bytes(page):
    """Hashes of the models by precision and submission, and whether they are one."""
    found = {}
    for row in page.data["bytes.csv"]:
        # Where there is no model, the hash is of nothing.
        if row["sha256"] and number(row["models"]):
            found.setdefault((row["visit"], row["precision"]), {})[row["submission"]] = (row["models"], row["sha256"])
    rows = []
    for (visit, precision), hashes in found.items():
        verdict = DASH if len(hashes) < 2 else "same" if len(set(hashes.values())) == 1 else "**differ**"
        shown = [f"{hashes[name][0]}: `{hashes[name][1][:12]}`" if name in hashes else DASH for name in SUBMISSIONS]
        rows.append((visit, [precision, *shown, verdict]))
    if not rows:
        return ["Bytes of trained models: not compared.", ""]
    text = "Models trained with one seed, number and hash by how launches are submitted; in a line they should be the same:"
    return page.table(text, ["precision", *SUBMISSIONS, "verdict"], rows)


def right(page):
    names = {"ok": "passed", "FAILED": "failed", "TIMEOUT": "not done in time", "SKIPPED": "not run"}
    counts = Counter((row["visit"], row["part"], row["outcome"]) for row in page.data["checks.csv"])
    parts = dict.fromkeys((row["visit"], row["part"]) for row in page.data["checks.csv"])
    rows = [(visit, [part, *(str(counts[visit, part, name]) for name in names)]) for visit, part in parts]
    columns = ["part", "check", "outcome", "detail"]
    bad = checks(page, lambda _, outcomes: outcomes - {"ok", "SKIPPED"})
    lines = page.table("Checks:", ["part", *names.values()], rows) if rows else ["No check came back.", ""]
    if bad:
        lines += page.table("Checks that did not pass, with the outcome of every visit:", columns, bad)
    elif rows:
        lines += ["No check that was run failed or ran out of time.", ""]
    # A part can end before it has said anything of a check.
    broken = dict.fromkeys(row["part"] for row in page.data["parts.csv"] if row["outcome"] == "failed")
    silent = [part for part in broken if part not in {cells[0] for _, cells in bad}]
    lines += [f"**Parts that failed without a check that did: {', '.join(silent)}.**", ""] if silent else []
    lines += same_bytes(page)
    sanitizers = checks(page, lambda part, _: part in SANITIZERS)
    lines += page.table("Sanitizers:", columns, sanitizers) if sanitizers else ["Sanitizers: not run.", ""]
    agreement = [(visit, [code(line)]) for visit, line in page.lines("tables.txt")]
    title = "A table on CUDA beside the CPU's"
    lines += page.table(f"{title}:", ["comparison"], agreement) if agreement else [f"{title}: not compared.", ""]
    tables = [(visit.label, PurePosixPath(name)) for visit in page.visits for name in visit.files if name.endswith("/table.md")]
    links = [f"[{name.parent.name}]({page.place(visit, name)})" for visit, name in tables]
    return ["## Correctness", "", *lines, *(["Tables that were run: " + ", ".join(links) + ".", ""] if links else [])]


def case_of(row):
    return (row["network"], int(row["width"]), int(row["batch"]), row.get("task", "step"), int(row["attack_steps"]))


def name_of(case):
    network, width, batch, task, attack_steps = case
    return f"{network} w={width} batch {batch} " + (f"PGD-{attack_steps}" if task == "step" else task)


def of_case(page, name, visit, case):
    """Lines of a case: those of the visit, or if it has none, of the others."""
    rows = [row for row in page.data[name] if case_of(row) == case]
    return [row for row in rows if row["visit"] == visit] or rows


def compare(page, visit, case, precision):
    """All numbers of a case: milliseconds and ratios."""

    def measured(submission, column):
        rows = of_case(page, "speed.csv", visit, case)
        values = [number(row[column]) for row in rows if (row["precision"], row["submission"]) == (precision, submission)]
        values = [value for value in values if value]
        return median(values) if values else None

    said = of_case(page, "predictions.csv", visit, case)
    said = next((row for row in said if (row["gpu"], row["precision"]) == (page.short, precision)), {})
    peers = of_case(page, "pytorch.csv", visit, case)
    # In bf16 any mode may be the one to beat; in f32 only those in f32.
    peers = [row for row in peers if number(row["images_per_second"]) and (precision == "bf16" or "bf16" not in row["mode"])]
    peer = max(peers, key=lambda row: number(row["images_per_second"]), default={})
    ours, serial, theirs = measured("graphs", "seconds"), measured("serial", "seconds"), number(peer.get("seconds", ""))
    ours, serial, theirs = (None if seconds is None else 1e3 * seconds for seconds in (ours, serial, theirs))
    floor, predicted = number(said.get("floor_ms", "")), number(said.get("predicted_ms", ""))
    faster = ratio(measured("graphs", "images_per_second"), number(peer.get("images_per_second", "")))
    return {
        "floor, ms": digits(floor), "predicted, ms": digits(predicted), "measured, ms": digits(ours),
        "of floor": percent(ratio(floor, ours)), "measured / predicted": times(ratio(ours, predicted)),
        "serial, ms": digits(serial), "serial / measured": times(ratio(serial, ours)),
        "PyTorch's best mode": peer.get("mode", DASH), "PyTorch, ms": digits(theirs), "engine / PyTorch": times(faster),
    }  # fmt: skip


def span(column, rows):
    """Least and most of a column of ratios."""
    found = sorted((float(row[column]), name) for name, row in rows if row[column] != DASH)
    if not found:
        return []
    (least, first), (most, last) = found[0], found[-1]
    above = sum(value > 1 for value, _ in found)
    return [f"- {column}: from {least:.2f} ({first}) to {most:.2f} ({last}); above 1 in {above} of {len(found)}."]


def fast(page):
    lines = ["## Speed", ""]
    for visit, line in page.lines("doctor.txt"):
        if line.startswith("launches "):
            lines += [f"`engine doctor`{f' ({visit})' if page.several else ''}: {line}.", ""]
    predicted = [row for row in page.data["predictions.csv"] if row["gpu"] == page.short]
    keys = {(case_of(row), row["precision"]) for row in [*page.data["speed.csv"], *predicted]}
    keys |= {(case_of(row), precision) for row in page.data["pytorch.csv"] for precision in ("f32", "bf16")}
    ran = {(row["visit"], case_of(row), row["precision"]) for row in page.data["speed.csv"]}
    rows = []
    for case, precision in sorted(keys):
        visits = [visit.label for visit in page.visits if (visit.label, case, precision) in ran] or [DASH]
        rows += [(visit, f"{name_of(case)} {precision}", compare(page, visit, case, precision)) for visit in visits]
    if not rows:
        return [*lines, "No step was timed.", ""]
    text = (
        "A step of adversarial training. Measured: launches in graphs, overlapping where the GPU can; serial: one after the other; of "
        "floor: floor / measured; engine / PyTorch: images/s. The best mode is of all for bf16, and of those in f32 for f32."
    )
    text += " Where a visit has not run PyTorch, another's counts." if page.several else ""
    lines += page.table(text, ["case", *rows[0][2]], [(visit, [name, *found.values()]) for visit, name, found in rows])
    for column in ("engine / PyTorch", "measured / predicted", "serial / measured"):
        lines += span(column, [(name, found) for _, name, found in rows])
    return [*lines, ""]


def peers(page):
    speed, modes = {}, {}
    for row in page.data["pytorch.csv"]:
        found = speed.setdefault((row["visit"], case_of(row)), {})
        found[row["mode"]] = max(found.get(row["mode"], 0), number(row["images_per_second"]) or 0)
        modes[row["mode"]] = None
    rows = [
        (visit, [name_of(case), *(digits(found.get(mode) or None) for mode in modes)]) for (visit, case), found in speed.items()
    ]
    versions = ", ".join(sorted({row["version"] for row in page.data["pytorch.csv"]}))
    text = f"Images/s of every mode of PyTorch {versions} that ran:"
    lines = page.table(text, ["case", *modes], rows) if rows else ["No mode of PyTorch came back.", ""]
    ceilings = [(visit, line.split(",", 2)) for visit, line in page.lines("ceilings.csv") if line.count(",") > 1]
    lines += page.table("Ceilings:", ["what", "of", "value"], ceilings) if ceilings else ["No ceiling was measured.", ""]
    return ["## PyTorch and ceilings", "", *lines]


def kernels(page):
    lines = ["## Where the time goes", ""]
    head = ["kernel", "sizes", "launches", "µs", "µs in all", "share, %", "TFLOP/s", "TB/s"]
    columns = ["launches", "microseconds", "total_microseconds", "share_percent", "tflops", "tb_per_s"]
    for (visit, name), rows in page.kernels.items():
        lines += [f"### {name.removeprefix('kernels-').removesuffix('.csv')}{f' ({visit})' if page.several else ''}", ""]
        if not rows:
            lines += ["Nothing came back.", ""]
            continue
        of_all, of_shown = (sum(number(row["total_microseconds"]) or 0 for row in part) for part in (rows, rows[:MOST]))
        launches = sum(int(row["launches"]) for row in rows)
        text = f"{len(rows)} lines, {launches:,} launches, {of_all:,.1f} µs one after the other"
        text += f"; {of_shown:,.1f} µs ({percent(ratio(of_shown, of_all))}) in the {MOST} longest:" if len(rows) > MOST else ":"
        cells = [[code(row["kernel"]), code(row["sizes"], 90), *(row[column] for column in columns)] for row in rows[:MOST]]
        lines += page.table(text, head, [(visit, line) for line in cells])
    return lines if page.kernels else [*lines, "No kernel was timed.", ""]


def program_tiles(page, visit):
    """Timed convolutions in bf16 by what they compute, with the tile that the program chose: the visit's, or all if it has none."""
    found = {}
    timed = [row for rows in page.kernels.values() for row in rows]
    for row in [row for row in timed if row["visit"] == visit] or timed:
        kernel = re.fullmatch(r"(correlate|conv2d_bwd_weight)_bf16_(k?\d*_?c\d+\w*)", row["kernel"])
        dims = re.search(r"\bd = \[((?:\d+, ){9}\d+)\]", row["sizes"])
        if kernel and dims:
            n, c_in, h_in, w_in, c_out, _, _, *rest = dims[1].split(", ")
            weights, gradient = kernel[1] != "correlate", "gradient = [1]" in row["sizes"]
            key = (PASSES[2 if weights else int(gradient)], n, c_in, h_in, w_in, c_out, *rest)
            found.setdefault(key, {**row, "tile": kernel[2]})
    return found


def tiles_of(page, visit):
    """What the tuner found in a visit, beside what the program chose there."""
    dims = ("pass", "n", "c_in", "h_in", "w_in", "c_out", "k", "stride", "pad")
    tuned = [row for row in page.data["tiles.csv"] if row["visit"] == visit]
    own = program_tiles(page, visit)
    both = [(own[key], row) for row in tuned if (key := tuple(row[dim] for dim in dims)) in own]
    other = [(before, row) for before, row in both if before["tile"] != row["tile"]]
    wins = sum(row["tile"].endswith("_warpgroup") for row in tuned)
    text = f"{f'In {visit}, a' if page.several else 'A'} tile of warpgroups is the fastest for {wins or 'none'} of {len(tuned)}."
    if both:
        text += f" Of {len(both)} that `kernels-*.csv` have too, the tuner chose another tile than the program for {len(other)}."
    if not other:
        return [text, ""]
    other.sort(key=lambda pair: -(number(pair[0]["total_microseconds"]) or 0))
    name = "{c_in}→{c_out}, {k}×{k} /{stride}, {h_in}², batch {n}"
    rows = [
        (visit, [row["pass"].replace("_", " "), name.format(**row), before["launches"], code(before["tile"]),
                 digits(number(before["microseconds"])), code(row["tile"]), digits(number(row["microseconds"]))])
        for before, row in other[:MOST]
    ]  # fmt: skip
    head = ["direction", "convolution", "launches", "the program's tile", "µs", "the tuner's", "µs"]
    return page.table(text + f" Those that take longest{f', {MOST} of them' if len(other) > MOST else ''}:", head, rows)


def tiles(page):
    lines = ["## Tiles", ""]
    if not page.data["tiles.csv"]:
        return [*lines, "Nothing was tuned.", ""]
    count = Counter((row["visit"], row["tile"], row["pass"]) for row in page.data["tiles.csv"])
    names = sorted({key[:2] for key in count})
    rows = [(visit, [code(tile), *(str(count[visit, tile, which]) for which in PASSES)]) for visit, tile in names]
    text = "How many convolutions a tile is the fastest for, in each direction:"
    lines += page.table(text, ["tile", *(which.replace("_", " ") for which in PASSES)], rows)
    visits = dict.fromkeys(row["visit"] for row in page.data["tiles.csv"])
    return lines + [line for visit in visits for line in tiles_of(page, visit)]


def launches_of(lines):
    """Launches that Nsight Compute has measured, and what it says of them."""
    found = []
    for line in lines:
        if launch := LAUNCH.match(line):
            found.append({"kernel": launch[1]})
        elif found and (metric := METRIC.fullmatch(line.rstrip())):
            found[-1].setdefault(metric[1], f"{metric[3]} {metric[2]}")
    return [launch for launch in found if len(launch) > 1]


def ncu(page):
    metrics = ("Duration", "Memory Throughput", "Compute (SM) Throughput")
    files = [(visit, name) for visit in page.visits for name in sorted(visit.files) if name.startswith("ncu-")]
    rows = [
        (visit.label, [name, code(launch["kernel"], 60), *(launch.get(metric, DASH) for metric in metrics)])
        for visit, name in files
        for launch in launches_of(visit.lines(name))[:MOST]
    ]
    text = f"At most {MOST} launches of a file:"
    return ["## Nsight Compute", "", *page.table(text, ["file", "kernel", *metrics], rows)] if rows else []


def not_done(page):
    columns = ["part", "outcome", "seconds", "budget"]
    parts = [(row["visit"], [row[column] for column in columns]) for row in page.data["parts.csv"]]
    lines = page.table("Parts:", columns, parts) if parts else ["Which parts were run did not come back.", ""]
    groups = {}
    for visit, (part, check, _, detail) in checks(page, lambda _, outcomes: outcomes == {"SKIPPED"}):
        groups.setdefault((visit, part, detail), []).append(check)
    rows = [
        (visit, [part, str(len(names)), ", ".join(names[:3]) + (", …" if len(names) > 3 else ""), detail])
        for (visit, part, detail), names in groups.items()
    ]
    lines += page.table("Checks that no visit ran:", ["part", "number", "checks", "why"], rows) if rows else []
    there = [PurePosixPath(name) for visit in page.visits for name in visit.files if visit.lines(name)]
    absent = [f"`{name}`" for name in EXPECTED if not any(path.match(name) for path in there)]
    lines += [f"No visit brought back {', '.join(absent)}.", ""] if absent else []
    lines += [
        f"Lines of `{page.place(visit.label, name)}` that are incomplete and not counted: {count}.\n"
        for visit in page.visits
        for name, count in visit.incomplete.items()
    ]
    return ["## Skipped or cut short", "", *lines]


def made(page):
    visits = [f"bash gpu-check.sh {visit.info.get('visit', '')}".strip() for visit in page.visits]
    runs = ["benches/gpu-rehearsal.sh"] if page.rehearsal else ["benches/gpu-kit.sh", *visits]
    given = " ".join(visit.source.resolve().name for visit in page.visits)
    raw = [page.place(visit.label, name) for visit in page.visits for name in sorted(visit.files) if "/" not in name]
    links = ", ".join(f"[{name}]({name})" for name in raw)
    return ["## How it was made", "", "```", *runs, f"python3 benches/gpu-page.py {given}", "```", "", f"Raw: {links}."]


def write(page, out, force):
    """Writes everything beside its place, and then moves it there."""
    place = out / page.folder
    if place.exists() and not force:
        raise Problem(f"{place}: there is a page already; give --force to write it anew, or another --out")
    sections = (header, right, fast, peers, kernels, tiles, ncu, not_done, made)
    text = "\n".join(line for section in sections for line in section(page))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".gpu-page-", dir=out) as scratch:
        new = Path(scratch, "new")
        for visit in page.visits:
            for name, data in visit.files.items():
                file = new / page.place(visit.label, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        (new / "README.md").write_text(re.sub(r"\n{3,}", "\n\n", text) + "\n", encoding="utf-8")
        if place.exists():
            shutil.move(place, Path(scratch, "old"))
        new.rename(place)
    return place / "README.md"


def parse():
    parser = argparse.ArgumentParser(description="A page of measurements from what visits to a GPU brought back.")
    parser.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE", help="tar.gz of gpu-check.sh, or the folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench", help="where its folder goes; default: docs/bench")
    parser.add_argument("--force", action="store_true", help="write a page anew")
    return parser.parse_args()


def main():
    args = parse()
    try:
        print(write(Page(read(args.archives)), args.out, args.force))
    except (Problem, OSError) as problem:
        print(f"gpu-page: {problem}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
