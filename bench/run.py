#!/usr/bin/env -S python3 -B
"""Measures upager beside kernel swap, zram, no upager at all, and the plainest userfaultfd loop.

Both sides of a row get the same program and the same limit, and swap areas of the same size on the
same disk. A row is measured in pairs, the side that begins alternating; its figure is the median of
what the program itself timed, and its ratio that of the medians. Where this process may not make a
cgroup or a swap area, it says why and measures upager alone. Every read was checked: a wrong page
ends the row, and the run with status 1.
"""

import argparse
import contextlib
import copy
import json
import os
import re
import signal
import shutil
import sys
import tempfile
import time

import figures
import kernel_swap
import plot
import report
from kernel_swap import MIB, PREFIX, Unavailable
from processes import Failed, Program
from rows import ROWS
from sides import make_sides

ROOT = report.ROOT
LIMIT_MINIMUM = 16 * MIB
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Job:
  """One run of a work on one side."""

  def __init__(self, bench, row, work, side_name, size, limit):
    self.bench, self.row, self.work, self.side_name = bench, row, work, side_name
    self.size, self.limit, self.config = size, max(limit or 0, LIMIT_MINIMUM), work.config
    self.name = f"bench-{os.getpid()}-{next(bench.numbers)}"
    self.stderr = None
    self.sample = False

  def like(self, work, size, limit):
    """The same, of another work."""
    job = copy.copy(self)
    job.work, job.size, job.limit, job.config = work, size, max(limit, LIMIT_MINIMUM), work.config
    job.name += "-"
    return job

  def sampling(self):
    """The same, with a look at how much memory it takes."""
    job = copy.copy(self)
    job.sample = True
    return job

  def built(self, *path):
    return os.path.join(self.bench.options.build, *path)

  def start(self, command, **options):
    side = self.bench.sides[self.side_name]
    return Program(side.wrap(command, self), self.stderr, self.bench.timeout, side.before(self),
                   self.sample, **options)

  def end(self, program, good=0):
    try:
      program.wait(good)
    except Failed as failure:
      raise Failed(f"{failure}\n{self.errors()[-2000:]}".rstrip()) from failure

  def errors(self):
    self.stderr.seek(0)
    return self.stderr.read()

  def measure(self):
    with tempfile.TemporaryFile("w+", dir=self.bench.folder) as self.stderr:
      result = self.work.run(self)
      if result.get("wrong"):
        raise Failed(f"{result['wrong']} wrong pages or values\n{self.errors()[-2000:]}".rstrip())
      self.bench.sides[self.side_name].check(result, self)
    return result


class Bench:
  def __init__(self, options, folder):
    self.options = options
    self.quick = options.quick
    self.timeout = 60 if self.quick else 1800  # seconds, of one run of a program
    self.upager = None if options.only == "kernel" else options.upager
    self.folder = folder
    self.swap_folder = options.swap_dir
    largest = max([size for row, size in options.works if size], default=0)
    self.swap_size = max(largest * 5 // 4, (256 if self.quick else 1280) * MIB)
    self.numbers = iter(range(1 << 30))
    self.progress = figures.Progress()
    self.report = {}
    self.rows = []
    self.sides = make_sides(self)
    self.why_not = {}  # side → why it cannot be had

  def close_kernel(self):
    for name in ("swap", "zram"):
      self.sides[name].close()

  def close(self):
    for side in self.sides.values():
      side.close()

  def available(self, name):
    """Opens a side. => whether it is there; if not, that is said once."""
    if name not in self.why_not:
      try:
        self.sides[name].open()
        return True
      except (Unavailable, OSError) as error:
        self.why_not[name] = str(error)
        self.say(f"the side \"{self.sides[name].label}\" is left out: {error}")
    return False

  def say(self, text):
    self.progress.clear()
    print(f"bench: {text}", file=sys.stderr)

  def show(self, row, text):
    number = len(self.rows) + 1
    self.progress.show(f"[{number}/{len(self.options.works)}] {row.name}: {text}")

  def run(self):
    try:
      for row, size in self.options.works:
        found = {"name": row.name, "slug": row.slug, "figures": [], "runs": {}, "failures": {},
                 "against": row.against or (self.sides[row.side].label if row.side else None),
                 "several_sizes": len(sizes_of(row, self.options)) > 1, "size": size}
        started = time.monotonic()
        try:
          self.measure_row(row, size, found)
        except Unavailable as reason:
          found["skipped"] = str(reason)
        finally:
          found["seconds"] = time.monotonic() - started
          found["figures"] = [figures.evaluate(figure, found["runs"]) for figure in row.figures]
          if found["runs"] or "skipped" in found:
            self.rows.append(found)
    finally:
      self.progress.clear()

  def prepare(self, row, size):
    """=> bytes of the set."""
    if row.compressed and self.upager and not self.sides["ours"].has("--compressed"):
      raise Unavailable("not in this build: upager run --compressed")
    for work in {id(work): work for work in (row.work, row.theirs)}.values():
      if size is None and work.size is None or not getattr(work, "ready", False):
        self.show(row, "preparing")
        job = Job(self, row, work, "bare", size, 0)
        with tempfile.TemporaryFile("w+", dir=self.folder) as job.stderr:
          try:
            work.prepare(job)
          except Failed as failure:
            raise Unavailable(f"without upager: {failure}") from failure
        work.ready = True
    return size or row.work.size

  def measure_row(self, row, size, found):
    size = found["size"] = self.prepare(row, size)
    limit = found["limit"] = max(int(size * row.share) & ~0xFFFF, LIMIT_MINIMUM)
    wanted = {"ours": (row.work, "ours"), "theirs": (row.theirs, row.side)}
    wanted = {role: (work, side) for role, (work, side) in wanted.items()
              if side and self.available(side)}
    if not wanted:
      raise Unavailable("no side of it is available")
    pairs = found["pairs"] = self.options.pairs * row.pairs
    for pair in range(pairs):
      for role in list(wanted) if pair % 2 == 0 else list(reversed(wanted)):
        if role in found["failures"]:
          continue
        work, side = wanted[role]
        self.show(row, f"pair {pair + 1} of {pairs}, {self.sides[side].label}")
        self.measure_one(Job(self, row, work, side, size, limit), role, found)
    for role in found["failures"]:
      found["runs"].pop(role, None)

  def measure_one(self, job, role, found):
    runs = found["runs"].setdefault(role, [])
    try:
      result = job.measure()
      digest = next((run["digest"] for other in found["runs"].values() for run in other
                     if "digest" in run), result.get("digest"))
      if result.get("digest") != digest:
        raise Failed("the output is not what it was in the other runs")
      runs.append(result)
      if job.row.disk and role == "ours":
        found["runs"].setdefault("disk", []).append(self.measure_disk(job, result["phase"]))
    except Failed as failure:
      found["failures"][role] = str(failure)
      self.say(f"{job.row.name}, {job.bench.sides[job.side_name].label}: {failure}")

  def measure_disk(self, job, moved):
    """The bytes that upager has just read and written, in order and in large blocks."""
    sizes = [str(moved[name] * 4096) for name in ("pages_in", "pages_out")]
    self.sides["ours"].open()
    with tempfile.TemporaryFile("w+", dir=self.folder) as job.stderr:
      with Program([job.built("bench", "disk"), self.sides["ours"].swap, *sizes],
                   job.stderr, self.timeout) as program:
        output = program.line()
        job.end(program)
    return json.loads(output)


def parse_size(text):
  match = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
  if not match:
    raise argparse.ArgumentTypeError(f"'{text}' is not a size (such as 256M)")
  return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match.group(2)]


def sizes_of(row, options):
  """=> the sizes that a row is measured at; None, where its work finds out."""
  if row.sets():
    return [int(options.limit / row.share) & ~0xFFFF] if options.limit else options.sizes
  return [row.size[1 if options.quick else 0] if row.size else None]


def parse_arguments():
  quick = os.environ.get("QUICK", "0") not in ("", "0")
  build = os.environ.get("UPAGER_BUILD") or os.path.join(ROOT, "build")
  parser = argparse.ArgumentParser(
    description=__doc__.split("\n\n", maxsplit=1)[0],
    epilog="QUICK=1 in the environment is --quick. Results go to bench/out/.")
  parser.add_argument("--quick", action="store_true", default=quick,
                      help="smaller sets, fewer pairs: under three minutes")
  parser.add_argument("--rows", metavar="REGEX", default="",
                      help="only the rows whose name, or the name of the other side, matches")
  parser.add_argument("--list", action="store_true", help="list the rows and their goals; no more")
  parser.add_argument("--pairs", type=int, help="pairs a row (5; quick: 2); below the limit, twice")
  sizes = parser.add_mutually_exclusive_group()
  sizes.add_argument("--size", type=lambda text: list(map(parse_size, text.split(","))),
                     metavar="SIZE,…", dest="sizes",
                     help="of the working sets (512M,4G; quick: 48M)")
  sizes.add_argument("--limit", type=parse_size, help="the memory limit instead; the sets follow")
  parser.add_argument("--only", choices=("upager", "kernel"), help="measure one side alone")
  parser.add_argument("--json", action="store_true", help="print the results as JSON, no table")
  parser.add_argument("--readme", metavar="FILE", nargs="?", const=report.README,
                      help="write the last results into README.md, or FILE; measure nothing")
  parser.add_argument("--swap-dir", default="/var/tmp", help="folder of the swap files (/var/tmp)")
  parser.add_argument("--build", default=build, help="build folder ($UPAGER_BUILD, or build)")
  parser.add_argument("--upager", help="the upager command (that of the build)")
  parser.add_argument("--out", default=os.path.join(ROOT, "bench", "out"), help="folder of results")
  options = parser.parse_args()
  options.sizes = options.sizes or ([48 * MIB] if options.quick else [512 * MIB, 4096 * MIB])
  options.pairs = options.pairs or (2 if options.quick else 5)
  options.build = os.path.abspath(options.build)
  options.upager = options.upager or os.path.join(options.build, "client", "upager")
  options.swap_dir = os.path.realpath(options.swap_dir)
  if options.pairs < 1 or (options.limit or min(options.sizes)) < MIB:
    parser.error("at least one pair, and a size of at least 1M")
  options.works = [(row, size) for row in ROWS
                   if row.matches(options.rows, row.against or row.side or "")
                   for size in sizes_of(row, options)]
  if not options.works:
    parser.error(f"no row matches '{options.rows}' (--list names them)")
  return options


def list_rows(works):
  for row in {row.slug: row for row, _ in works}.values():
    goals = "; ".join(f"{figure.label} {figures.goal_text(vars(figure))}".strip()
                      for figure in row.figures)
    print(f"{row.name} | {row.against or row.side or 'alone'}: {goals}")


def sweep(folder):
  """Removes what runs that were killed have left."""
  kernel_swap.sweep(folder)
  for name in os.listdir(folder):
    match = re.fullmatch(PREFIX + r"(\d+)", name)
    if match and not kernel_swap.process_lives(int(match.group(1))):
      shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


@contextlib.contextmanager
def work_folder(parent):
  sweep(parent)
  path = os.path.join(parent, f"{PREFIX}{os.getpid()}")
  os.mkdir(path)
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)


def on_signal(number, _frame):
  """Cleaning up takes seconds at most; whoever is impatient waits for it."""
  for other in SIGNALS:
    signal.signal(other, signal.SIG_IGN)
  raise KeyboardInterrupt(signal.Signals(number).name)


def measure(options):
  """=> (report, whether it was interrupted, whether all went well)"""
  interrupted = False
  with work_folder(options.swap_dir) as folder:
    bench = Bench(options, folder)
    bench.report = {"quick": options.quick, **report.environment(options)}
    with contextlib.ExitStack() as stack:
      stack.callback(bench.close)
      try:
        bench.run()
      except KeyboardInterrupt:
        print("bench: interrupted; cleaning up", file=sys.stderr)
        interrupted = True
    bench.report["seconds"] = time.monotonic() - bench.progress.started
  bench.report["left_out"] = bench.why_not
  bench.report["rows"] = bench.rows
  return bench.report, interrupted, not any(row["failures"] for row in bench.rows)


def main():
  options = parse_arguments()
  if options.list:
    list_rows(options.works)
    return 0
  if options.readme:
    return report.write_readme(os.path.join(options.out, "latest.json"), options.readme)
  for path in (os.path.join(options.build, "bench", "workset"), options.upager):
    if not os.access(path, os.X_OK):
      sys.exit(f"bench: {path} is not built: run ninja -C {options.build}")
  if report.filesystem_of(options.swap_dir)[1] == "tmpfs":
    sys.exit(f"bench: {options.swap_dir} is in memory; name a folder on a disk with --swap-dir")
  for number in SIGNALS:
    signal.signal(number, on_signal)
  found, interrupted, good = measure(options)
  if found["rows"]:
    path = report.write_results(options.out, found)
    plot.write(options.out, found)
    print(json.dumps(found) if options.json else figures.format_table(found["rows"]))
    print(f"bench: {found['seconds']:.0f} s; every run is in {path}, plots beside it",
          file=sys.stderr)
  return 130 if interrupted else 0 if good else 1


if __name__ == "__main__":
  sys.exit(main())
