"""What is measured: one Row for each kind of work, beside what, and which ratio is good enough.

Rows are data. A kind of work is a class in works.py, a side one in sides.py.
"""

import dataclasses
import re

from kernel_swap import MIB
from works import Command, Latency, Memory, Redis, Workset, of_tests, python_dict

GIB = 1 << 30
NS, BYTES = "ns", "bytes"  # units


@dataclasses.dataclass
class Figure:
  """One number of a row's results. goal: the highest ratio, ours to theirs, that is good; or, of a
  figure that stands alone, the highest value."""

  key: str
  goal: float
  label: str = ""
  unit: str = NS
  alone: bool = False
  interval: bool = False  # the goal holds if the whole confidence interval is within it
  floor: float = None     # the goal also holds within so many times what the disk takes


@dataclasses.dataclass
class Row:
  name: str
  work: object
  side: str                # of theirs: a name in sides.py, or None
  figures: list
  theirs: object = None    # their work, if it is another
  against: str = None      # how the other side is called, if not by the side
  share: float = 0.5       # the limit, as a part of the set
  size: object = None      # of the set: None = --size, else (full, quick), or the work knows
  pages: bool = True       # the limit is in force: something has to be evicted
  pairs: int = 1           # so many times as many pairs
  compressed: bool = False # our side pages to compressed memory
  disk: bool = False       # what the disk takes for the same bytes is measured too

  def __post_init__(self):
    self.theirs = self.theirs or self.work

  @property
  def slug(self):
    words = re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")
    return f"{words}-{self.side or 'alone'}"

  def sets(self):
    """Whether its set is of the size that was asked for."""
    return isinstance(self.work, Workset) and self.size is None

  def matches(self, pattern, label):
    return re.search(pattern, f"{self.name} | {label}")


def touch(goal, **more):
  return Figure("ns_per_touch", goal, **more)


# Prepared once, whichever rows they are in.
REDIS = Redis(512 * MIB)
PYTHON = Command(python_dict, .12, 3)

CPU = Figure("cpu_per_page", 2000, "daemon's CPU a page in or out", alone=True)


def workset(pattern, op, threads=1, fill="random", **more):
  return Workset("--pattern", pattern, "--op", op, "--threads", str(threads), "--fill", fill, **more)


def below():
  """A program that never comes near its limit: all of the interval has to be within 1 %."""
  def figure(key, label=""):
    return Figure(key, 1.01, label, interval=True)

  more = {"side": "bare", "share": 2, "pages": False, "pairs": 2}
  return [
    Row("below the limit: touch", workset("sequential", "readwrite", fill="header", passes=2),
        figures=[figure("touch_ns")], size=(2 * GIB, 128 * MIB), **more),
    Row("below the limit: redis", REDIS,
        figures=[figure("get_ns", "GET"), figure("set_ns", "SET")], **more),
    Row("below the limit: python dict", PYTHON, figures=[figure("ns")], **more),
  ]


# The first pass of a scan meets what the filling left behind; two show the steady state too.
def disk():
  goals = [("read", .95, .75), ("write", .85, .65)]
  rows = [
    Row("sequential read", workset("sequential", "read", passes=2), "swap", [touch(.20), CPU]),
    Row("sequential read-write", workset("sequential", "readwrite", passes=2), "swap",
        [touch(.25, floor=1.15), CPU], disk=True),
    Row("cyclic read, 1.25 × limit", workset("cyclic", "read", passes=4), "swap", [touch(.10)],
        share=0.8),
  ]
  for op, one, many in goals:
    for threads, goal in ((1, one), (16, many)):
      rows.append(Row(f"random {op}, {count(threads)}",
                      workset("random", op, threads, bounded=True), "swap", [touch(goal)]))
  for op in ("read", "write"):
    rows.append(Row(f"zipf 0.99 {op}", workset("zipf", op, passes=2, bounded=True), "swap",
                    [touch(.8)]))
  return rows


def compressed():
  rows = []
  for op, goal, name in (("read", .2, "read"), ("readwrite", .4, "read-write")):
    rows.append(Row(f"compressed: sequential {name}",
                    workset("sequential", op, fill="text", passes=2), "zram", [touch(goal)],
                    compressed=True))
  for pattern in ("random", "zipf"):
    for op in ("read", "write"):
      for threads in (1, 16):
        rows.append(Row(f"compressed: {pattern} {op}, {count(threads)}",
                        workset(pattern, op, threads, "text", bounded=True), "zram", [touch(.9)],
                        compressed=True))
  return rows


def count(threads):
  return "1 thread" if threads == 1 else f"{threads} threads"


def programs():
  figures = [Figure(f"{op}{key}", .7, f"{op.upper()}{label}") for op in ("get", "set")
             for key, label in (("_ns", ""), ("_p99_ns", " p99"))]
  rows = [Row("redis at 50 %", REDIS, "swap", figures),
          Row("redis at 50 %, compressed", REDIS, "zram", figures, compressed=True)]
  for name, work in (("sqlite in memory", Command(of_tests("sqlite", "sqlite3", "script.sql"), .2)),
                     ("sort -S", Command(of_tests("sort", "sort"), .6)),
                     ("python dict", PYTHON),
                     ("gcc", Command(of_tests("gcc", "gcc"), .12))):
    rows.append(Row(f"{name} at 50 %", work, "swap", [Figure("ns", .7)]))
  return rows


def latencies():
  """Beside the plainest loop that could answer the same faults."""
  kinds = [
    ("standby hit", Latency("standby", config={"policy": "clock"}, counter="standby_hits"), "standby"),
    ("first touch", Latency("zero", config={"register": "eager"}, counter="zero"), "zero"),
    ("protected page reused", Latency("wp", config={"clean": "wp", "policy": "clock"},
                                      counter="wp_reuse"), "wp"),
  ]
  return [Row(f"one fault: {name}", work, "bare",
              [Figure("p50_ns", 1.2, "p50"), Figure("p99_ns", 2, "p99")],
              theirs=Latency(kind, "bare"), against="bare uffd loop", pages=False)
          for name, work, kind in kinds]


def memory():
  return [Row("memory of the pager", Memory(), None, [
    Figure(key, goal, label, BYTES, alone=True) for key, goal, label in (
      ("resident", 12, "a resident page"), ("evicted", 32, "an evicted page"),
      ("fixed", 16 * MIB, "fixed"))], pages=False)]


def scales():
  """The same set at the same limit under upager, by one task with one thread and one mapping."""
  one = workset("random", "readwrite", bounded=True)
  rows = []
  for name, option in (("200 tasks", ("--processes", "200")), ("64 threads", ("--threads", "64")),
                       ("1 TiB sparse", ("--spread", "1T")), ("20,000 VMAs", ("--vmas", "20000"))):
    work = Workset("--pattern", "random", "--op", "readwrite", *option, bounded=True)
    rows.append(Row(f"scale: {name}", work, "ours",
                    [touch(1.5, label="time"), Figure("cpu_per_fault", 1.5, "CPU a fault")],
                    theirs=one, against="one task", size=(512 * MIB, 192 * MIB)))
  return rows


ROWS = [*below(), *latencies(), *memory(), *scales(), *disk(), *programs(), *compressed()]
ROWS.sort(key=lambda row: ("bare", None, "ours", "swap", "zram").index(row.side))
