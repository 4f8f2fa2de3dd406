#!/usr/bin/env -S python3 -B
"""Runs bench/workset under upager and under kernel swap in turn and prints the ratios.

Both sides get the same program, the same limit and a swap file of the same size in the same folder.
A row is measured in pairs, the side that begins alternating; its figure is the median of what the
program itself timed, and its ratio that of the medians. Where this process may not make a cgroup or
a swap file, it says why and measures upager alone. Every page read was checked: a wrong one ends
the run with status 1.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import figures
import kernel_swap
from kernel_swap import MIB, Unavailable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUN_TIMEOUT = 900  # seconds, of one run of the program


class Failed(Exception):
  """A measurement that says nothing: the program failed, or read a wrong page."""


class Row:
  """One kind of work. set_size is limit × overflow; a goal is the highest ratio that is good."""

  def __init__(self, work, args, overflow=2.0, touches=1.0, goal=None):
    self.work = work
    self.args = args
    self.overflow = overflow
    self.touches = touches  # of the whole set
    self.goal = goal

  def command(self, workset, size):
    touches = max(1, int(self.touches * (size // 4096)))
    return [workset, "--size", str(size), "--touches", str(touches), "--json", *self.args]


def pattern(name, op, threads=1):
  args = ["--pattern", name, "--op", op, "--threads", str(threads)]
  # What writes without reading is read afterwards, outside the measured time.
  return [*args, "--verify"] if op == "write" else args


# The first pass of a scan meets what setup left behind; two rounds show the steady state too.
SWAP_ROWS = [
  Row("sequential read", pattern("sequential", "read"), touches=2, goal=1.0),
  Row("sequential write", pattern("sequential", "write"), touches=2, goal=1.0),
  Row("sequential read-write", pattern("sequential", "readwrite"), touches=2, goal=1.0),
  Row("cyclic read, 1.25 × limit", pattern("cyclic", "read"), overflow=1.25, touches=4),
  Row("random read, 1 thread", pattern("random", "read")),
  Row("random read, 16 threads", pattern("random", "read", 16)),
  Row("random write, 1 thread", pattern("random", "write")),
  Row("random write, 16 threads", pattern("random", "write", 16)),
  Row("zipf 0.99 read", pattern("zipf", "read"), touches=2),
  Row("zipf 0.99 write", pattern("zipf", "write"), touches=2),
]

BELOW_ROW = "touch, below the limit"


class Runner:
  """Runs one command at a time, and sees to it that none outlives this process."""

  def __init__(self):
    self.child = None

  def run(self, command, before=None):
    """=> the JSON object that the program printed, and what it wrote to stderr."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
      self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=errors, text=True, start_new_session=True,
                                    preexec_fn=before)
      try:
        output, _ = self.child.communicate(timeout=RUN_TIMEOUT)
      except subprocess.TimeoutExpired as error:
        raise Failed(f"no end after {RUN_TIMEOUT} s: {' '.join(command)}") from error
      finally:
        status = self.stop()
      errors.seek(0)
      stderr = errors.read()
    if status:
      raise Failed(f"status {status}: {' '.join(command)}\n{output}{stderr}".rstrip())
    try:
      result = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError) as error:
      raise Failed(f"no JSON from {' '.join(command)}: {output!r}") from error
    if result["wrong"]:
      raise Failed(f"{result['wrong']} wrong pages: {' '.join(command)}")
    result["wall_ns"] = int((time.monotonic() - started) * 1e9)
    return result, stderr

  def stop(self):
    """Ends the child if it still runs: gently first, so that upager can clean up behind itself."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
      if self.child.poll() is not None:
        break
      with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGTERM:
          self.child.send_signal(number)
        else:
          os.killpg(self.child.pid, number)
      with contextlib.suppress(subprocess.TimeoutExpired):
        self.child.wait(patience)
    return self.child.returncode


def find_counters(stderr):
  """The counters in what `upager run --json --stats` wrote, {} if there are none."""
  for line in reversed(stderr.splitlines()):
    if line.startswith("{"):
      with contextlib.suppress(ValueError):
        return search_counters(json.loads(line)) or {}
  with contextlib.suppress(ValueError):
    return search_counters(json.loads(stderr[stderr.index("{"):])) or {}
  return {}


def search_counters(value):
  if isinstance(value, list):
    return next(filter(None, map(search_counters, value)), None)
  if not isinstance(value, dict):
    return None
  if isinstance(value.get("counters"), dict):
    return value["counters"]
  return next(filter(None, map(search_counters, value.values())), None)


class Bench:
  def __init__(self, options):
    self.options = options
    self.runner = Runner()
    self.progress = figures.Progress()
    self.limit = options.limit
    self.swap_size = max(64 * MIB, 4 * options.limit)
    self.upager_swap = None
    self.kernel = None
    self.rows = []

  def ours(self, command, limit):
    """=> the result under upager, with its counters."""
    wrapped = [self.options.upager, "run", "--memory", str(limit)]
    if self.upager_swap:
      wrapped += ["--swap", self.upager_swap]
    result, stderr = self.runner.run([*wrapped, "--json", "--stats", "--", *command])
    result["counters"] = find_counters(stderr)
    return result

  def theirs(self, command, limit):
    self.kernel.cgroup.set_limit(limit, self.kernel.swap.size)
    result, _ = self.runner.run(command, before=self.kernel.cgroup.enter)
    if result["major_faults"] == 0:
      raise Failed("the kernel swapped nothing in: the limit was not in force")
    return result

  def bare(self, command, _limit):
    return self.runner.run(command)[0]

  def pairs(self, label, count, sides, command, limit):
    """Measures `sides` (name → function) in turn. => name → results; those of a failed side are
    missing, and the row says why."""
    results = {name: [] for name in sides}
    failures = {}
    for pair in range(count):
      names = list(sides) if pair % 2 == 0 else list(reversed(sides))
      for name in names:
        if name in failures:
          continue
        self.progress.show(f"[{len(self.rows) + 1}/{self.total}] {label}: pair {pair + 1} of "
                           f"{count}, {name}")
        try:
          results[name].append(sides[name](command, limit))
        except Failed as failure:
          failures[name] = str(failure)
          self.progress.clear()
          print(f"bench: {label}, {name}: {failure}", file=sys.stderr)
    return {name: runs for name, runs in results.items() if name not in failures}, failures

  def add(self, row, runs, failures, time_of):
    for side in ("ours", "theirs"):
      if runs.get(side):
        row[side] = statistics.median(map(time_of, runs[side]))
        row[f"{side}_runs"] = runs[side]
    if "ours" in row and "theirs" in row:
      mean, row["low"], row["high"] = figures.ratio_interval(
        list(map(time_of, runs["ours"])), list(map(time_of, runs["theirs"])))
      row["ratio"] = mean if row.get("interval") else row["ours"] / row["theirs"]
    row["failures"] = failures
    row["holds"] = figures.judge(row)
    self.rows.append(row)

  def below_limit(self):
    """First touches and two more rounds of a program far below its limit, with and without us."""
    size = self.options.below_size
    command = [self.options.workset, "--size", str(size), "--pattern", "sequential", "--op",
               "readwrite", "--passes", "2", "--fill", "header", "--json"]
    sides = {"ours": self.ours, "theirs": self.bare}
    if not self.options.upager:
      del sides["ours"]
    runs, failures = self.pairs(BELOW_ROW, self.options.below_pairs, sides, command, 2 * size)
    row = {"work": BELOW_ROW, "against": "without upager", "pairs": self.options.below_pairs,
           "goal": 1.02, "interval": True, "size": size, "limit": 2 * size}
    touched = 3 * (size // 4096)
    self.add(row, runs, failures,
             lambda run: (run["setup_ns"] + run["measured_ns"]) / touched)

  def swap_row(self, work):
    size = int(self.limit * work.overflow) & ~0xFFFF
    sides = {}
    if self.options.upager:
      sides["ours"] = self.ours
    if self.kernel:
      sides["theirs"] = self.theirs
    runs, failures = self.pairs(work.work, self.options.pairs, sides,
                                work.command(self.options.workset, size), self.limit)
    row = {"work": work.work, "against": "kernel swap", "pairs": self.options.pairs,
           "goal": work.goal, "size": size, "limit": self.limit}
    self.add(row, runs, failures, lambda run: run["ns_per_touch"])
    if any(not run["counters"].get("evicted") for run in row.get("ours_runs", [])):
      self.progress.clear()
      print(f"bench: {work.work}: upager evicted nothing: the limit was not in force",
            file=sys.stderr)
      row["holds"] = "no"

  def run(self, works, below):
    self.total = len(works) + below
    try:
      if below:
        self.below_limit()
      for work in works:
        self.swap_row(work)
    finally:
      self.progress.clear()


def make_upager_swap(folder, size):
  """A file written in full, as the kernel's is. => its path; the caller removes it."""
  handle, path = tempfile.mkstemp(prefix=f"{kernel_swap.PREFIX}upager-", dir=folder)
  block = os.urandom(MIB)
  with os.fdopen(handle, "wb") as file:
    for _ in range(size // MIB):
      file.write(block)
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
  return path


def filesystem_of(folder):
  """=> (device, type) of the file system that holds the folder."""
  best = ("", "?", "?")
  for line in kernel_swap.read_text("/proc/self/mounts").splitlines():
    device, where, kind = line.split()[:3]
    inside = folder == where or folder.startswith(where.rstrip("/") + "/")
    if inside and len(where) >= len(best[0]):
      best = (where, device, kind)
  return best[1:]


def environment(folder):
  cpu = re.search(r"model name\s*:\s*(.*)", kernel_swap.read_text("/proc/cpuinfo"))
  memory = re.search(r"MemTotal:\s*(\d+)", kernel_swap.read_text("/proc/meminfo"))
  device, kind = filesystem_of(folder)
  return {
    "kernel": platform.release(),
    "cpu": cpu.group(1) if cpu else "unknown",
    "cpus": len(os.sched_getaffinity(0)),
    "memory_bytes": int(memory.group(1)) * 1024 if memory else 0,
    "swap_device": device,
    "swap_filesystem": kind,
    "transparent_hugepage": kernel_swap.read_text(
      "/sys/kernel/mm/transparent_hugepage/enabled").strip(),
    "load_before": os.getloadavg()[0],
  }


def parse_size(text):
  match = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
  if not match:
    raise argparse.ArgumentTypeError(f"'{text}' is not a size (such as 256M)")
  return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match.group(2)]


def parse_arguments():
  quick = os.environ.get("QUICK", "0") not in ("", "0")
  build = os.environ.get("UPAGER_BUILD") or os.path.join(ROOT, "build")
  parser = argparse.ArgumentParser(
    description="Measure upager against kernel swap, and against no upager at all.",
    epilog="QUICK=1 in the environment is --quick. Results go to bench/out/.")
  parser.add_argument("--quick", action="store_true", default=quick,
                      help="smaller sets, fewer pairs: under three minutes")
  parser.add_argument("--limit", type=parse_size,
                      help="the memory limit (256M; quick: 64M); sets are twice that, or 1.25")
  parser.add_argument("--pairs", type=int, help="pairs a row (5; quick: 3)")
  parser.add_argument("--rows", metavar="REGEX", help="only the rows whose name matches")
  parser.add_argument("--only", choices=("upager", "kernel"), help="measure one side alone")
  parser.add_argument("--swap-dir", default="/var/tmp", help="folder of both swap files (/var/tmp)")
  parser.add_argument("--build", default=build, help="build folder ($UPAGER_BUILD, or build)")
  parser.add_argument("--upager", help="the upager command (that of the build)")
  parser.add_argument("--out", default=os.path.join(ROOT, "bench", "out"), help="folder of results")
  options = parser.parse_args()
  options.limit = options.limit or (64 if options.quick else 256) * MIB
  options.pairs = options.pairs or (3 if options.quick else 5)
  if options.pairs < 1 or options.limit < MIB:
    parser.error("at least one pair, and a limit of at least 1M")
  options.below_pairs = max(10, options.pairs)
  available = re.search(r"MemAvailable:\s*(\d+)", kernel_swap.read_text("/proc/meminfo"))
  roof = int(available.group(1)) * 1024 // 3 if available else 512 * MIB
  options.below_size = min((512 if options.quick else 2048) * MIB, roof & ~0xFFFF)
  options.workset = os.path.join(options.build, "bench", "workset")
  options.upager = options.upager or os.path.join(options.build, "client", "upager")
  if not os.access(options.workset, os.X_OK):
    parser.error(f"{options.workset} is not built: run meson compile -C {options.build}")
  if options.only == "kernel":
    options.upager = None
  elif not os.access(options.upager, os.X_OK):
    parser.error(f"{options.upager} is not built: run meson compile -C {options.build}")
  options.swap_dir = os.path.realpath(options.swap_dir)
  return options


def on_signal(number, _frame):
  raise KeyboardInterrupt(signal.Signals(number).name)


def write_results(options, report):
  os.makedirs(options.out, exist_ok=True)
  stamp = time.strftime("%Y%m%d-%H%M%S")
  for name in (f"{stamp}.json", "latest.json"):
    path = os.path.join(options.out, name)
    with open(path + ".tmp", "w") as file:
      json.dump(report, file, indent=1)
      file.write("\n")
    os.replace(path + ".tmp", path)
  return os.path.join(options.out, f"{stamp}.json")


def open_kernel_side(options, bench, stack):
  """=> why there is none, or None."""
  if options.only == "upager":
    return "not asked for"
  bench.progress.show("making the kernel's swap file")
  try:
    bench.kernel = stack.enter_context(
      kernel_swap.KernelSwap(options.swap_dir, bench.swap_size))
  except (Unavailable, OSError) as error:
    bench.progress.clear()
    print(f"bench: the kernel's side is skipped: {error}", file=sys.stderr)
    return str(error)
  return None


def main():
  options = parse_arguments()
  works = [row for row in SWAP_ROWS if re.search(options.rows or "", row.work)]
  below = bool(re.search(options.rows or "", BELOW_ROW))
  if not works and not below:
    sys.exit(f"bench: no row matches '{options.rows}'")
  if filesystem_of(options.swap_dir)[1] == "tmpfs":
    sys.exit(f"bench: {options.swap_dir} is in memory; name a folder on a disk with --swap-dir")
  for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, on_signal)
  bench = Bench(options)
  report = {"quick": options.quick, "limit": options.limit,
            "environment": environment(options.swap_dir)}
  interrupted = False
  try:
    with contextlib.ExitStack() as stack:
      report["kernel_skipped"] = open_kernel_side(options, bench, stack) if works else "not needed"
      if bench.kernel:
        report["kernel_swap"] = bench.kernel.describe()
      if options.upager and works:
        free = shutil.disk_usage(options.swap_dir).free
        if free < bench.swap_size + 64 * MIB:
          sys.exit(f"bench: {options.swap_dir} has only {free // MIB} MiB left")
        bench.upager_swap = make_upager_swap(options.swap_dir, bench.swap_size)
        stack.callback(lambda: os.path.exists(bench.upager_swap) and os.unlink(bench.upager_swap))
      bench.run(works if bench.kernel or options.upager else [], below)
  except KeyboardInterrupt:
    print("bench: interrupted; cleaned up", file=sys.stderr)
    interrupted = True
  report["rows"] = bench.rows
  report["seconds"] = time.monotonic() - bench.progress.started
  if bench.rows:
    print(figures.format_table(bench.rows))
    print(f"Times are per page touched; the limit is {options.limit // MIB} MiB; "
          f"details are in {write_results(options, report)}")
  if interrupted:
    sys.exit(130)
  sys.exit(1 if any(row["failures"] for row in bench.rows) else 0)


if __name__ == "__main__":
  main()
