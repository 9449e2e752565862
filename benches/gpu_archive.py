"""What visits to a GPU brought back, for benches/gpu-page.py: archives of benches/gpu-check.sh, their values and tables of them."""

import csv
import io
import math
import re
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

STEP = "network,width,batch,task,attack_steps,mode,threads,version,images_per_second,seconds,peak_mib"
COLUMNS = {
    "parts.csv": "part,outcome,seconds,budget",
    "checks.csv": "part,check,outcome,seconds,detail",
    "bytes.csv": "precision,submission,models,sha256",
    "speed.csv": f"precision,submission,{STEP}",
    "pytorch.csv": STEP,
    "predictions.csv": "gpu,network,width,batch,attack_steps,precision,floor_ms,predicted_ms",
    "tiles.csv": "pass,n,c_in,h_in,w_in,c_out,k,stride,pad,tile,microseconds",
}
KERNELS = "kernel,sizes,launches,microseconds,total_microseconds,share_percent,tflops,tb_per_s"
# Of what a line is about; without them it says nothing.
COUNTS = ("width", "batch", "attack_steps", "launches")
EXPECTED = ["visit.txt", "doctor.txt", *COLUMNS, "ceilings.csv", "tables.txt", "kernels-*.csv"]
KEPT = ["*.csv", "visit.txt", "doctor.txt", "nvidia-smi.txt", "tables.txt", "ncu-*.txt", "summary.txt"]
DASH = "–"
REMEDY = "give a tar.gz of gpu-check.sh, or the folder that it was packed from"


class Problem(Exception):
    """What is wrong, where, and what to do about it."""


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def number(text):
    """None for what is no number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def ratio(a, b):
    return a / b if a is not None and b else None


def digits(value):
    """Three of them that count."""
    if not value:
        return DASH if value is None else "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def times(value):
    return DASH if value is None else f"{value:.2f}"


def percent(value):
    return DASH if value is None else f"{100 * value:.0f} %"


def cell(text):
    """Of a table in Markdown, in one line."""
    text = " ".join(text.split())
    return DASH if text.lower().lstrip("+-") in ("", "nan", "inf", "none") else text.replace("|", "\\|")


def code(text, most=160):
    """As it is, cut to a length; nothing if there is nothing."""
    text = text.strip().replace("`", "'")
    return text and f"`{text if len(text) <= most else text[: most - 1] + '…'}`"


@dataclass
class Visit:
    """What an archive holds, by path."""

    label: str
    source: object
    info: dict
    files: dict
    # How many lines of a CSV were not written to their end.
    incomplete: dict = field(default_factory=dict)

    def text(self, name):
        return self.files.get(name, b"").decode(errors="replace")

    def lines(self, name):
        return [line for line in self.text(name).splitlines() if line.strip()]

    def rows(self, name, columns):
        """Of a CSV, with the visit in each; none if the file is missing or empty."""
        try:
            head, *lines = [line for line in csv.reader(io.StringIO(self.text(name))) if line] or [[]]
        except csv.Error as error:
            raise Problem(f"{self.source}: {name} is no CSV ({error}); {REMEDY}") from None
        missing = [column for column in columns.split(",") if column not in head]
        if head and missing:
            raise Problem(f"{self.source}: {name} has no column {', '.join(missing)}; {REMEDY}")
        rows = [{**dict(zip(head, line, strict=True)), "visit": self.label} for line in lines if len(line) == len(head)]
        whole = [row for row in rows if all(row.get(count, "0").isdecimal() for count in COUNTS)]
        if len(whole) < len(lines):
            self.incomplete[name] = len(lines) - len(whole)
        return whole


def wanted(path):
    """Whether a file belongs to the page. The output of a check does not: its line in checks.csv says what matters."""
    return path.match("results/*/table.*") if len(path.parts) == 3 else len(path.parts) == 1 and any(map(path.match, KEPT))


def unpacked(archive):
    """The files of a tar archive by path; nothing is written."""
    files = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise Problem(f"{archive}: {member.name} is outside of the archive's folder; {REMEDY}")
            if member.isfile() and wanted(path):
                files[str(path)] = tar.extractfile(member).read()
    return files


def contents(path):
    if path.is_dir():
        found = {PurePosixPath(file.relative_to(path).as_posix()): file for file in sorted(path.rglob("*")) if file.is_file()}
        return {str(name): file.read_bytes() for name, file in found.items() if wanted(name)}
    try:
        return unpacked(path)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        why = " ".join(str(error).split())
        raise Problem(f"{path}: cannot be read as an archive ({why}); {REMEDY}") from None


def read(paths):
    """A visit for each archive; all of one GPU."""
    visits = []
    for path in paths:
        files = contents(path)
        if not files.keys() & {"visit.txt", "parts.csv", "checks.csv"}:
            raise Problem(f"{path}: neither visit.txt nor parts.csv nor checks.csv is in it; {REMEDY}")
        visit = Visit("", path, {}, files)
        pairs = (line.partition(":") for line in visit.lines("visit.txt"))
        visit.info = {key.strip(): value.strip() for key, _, value in pairs}
        label = slug(visit.info.get("visit", "")) or "visit"
        taken = [other.label for other in visits]
        visit.label = label if label not in taken else f"{label}-{len(visits) + 1}"
        visits.append(visit)
    for key in ("gpu", "rehearsal"):
        values = {visit.info.get(key, "unknown") for visit in visits}
        if len(values) > 1:
            raise Problem(f"{paths[0]} and the others: {key} is {' and '.join(sorted(values))}; make a page of each")
    return visits


class Page:
    """All visits together."""

    def __init__(self, visits):
        self.visits = visits
        self.several = len(visits) > 1
        self.data = {name: [row for visit in visits for row in visit.rows(name, columns)] for name, columns in COLUMNS.items()}
        self.kernels = {
            (visit.label, name): visit.rows(name, KERNELS)
            for visit in visits
            for name in sorted(visit.files)
            if name.startswith("kernels-") and name.endswith(".csv")
        }
        self.rehearsal = visits[0].info.get("rehearsal") == "yes"
        self.gpu = visits[0].info.get("gpu") or "unknown GPU"
        # As predictions and folders name it.
        known = re.search(r"\bH[12]00\b", self.gpu)
        self.short = known[0] if known else self.gpu.removeprefix("NVIDIA ")
        self.date = min(visit.info.get("date") or "undated" for visit in visits)
        self.folder = f"{slug(self.date)}-{'rehearsal' if self.rehearsal else slug(self.short)}"

    def lines(self, name):
        """Of a text file, each with its visit."""
        return [(visit.label, line) for visit in self.visits for line in visit.lines(name)]

    def place(self, visit, name):
        """Of a raw file on the page."""
        return f"{visit}/{name}" if self.several else name

    def table(self, text, head, rows):
        """Markdown; each row is a visit and its cells. The visit is a column if there are several."""
        lines = [["visit", *map(cell, head)], ["---"] * (len(head) + 1), *([visit, *map(cell, cells)] for visit, cells in rows)]
        return [text, "", *(f"| {' | '.join(line if self.several else line[1:])} |" for line in lines), ""]
