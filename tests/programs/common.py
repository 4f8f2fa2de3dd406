"""Real programs at half of their peak: what the test_*.py beside this file have in common.

A program runs once without upager, watched for the most anonymous memory that it and its children
hold together, and once under `upager run` with half of that. Exit status and output must be the
same, pages must have been evicted, and nothing may be left behind. The result is TAP.

Environment: UPAGER_BUILD is the build directory (default: build). UPAGER_NATIVE=1 leaves upager
out of the second run too: that checks that the test itself is right.
"""

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.environ.get("UPAGER_BUILD") or os.path.join(ROOT, "build"))
UPAGER = os.path.join(BUILD, "client", "upager")
NATIVE = os.environ.get("UPAGER_NATIVE", "0") not in ("", "0")
MARK = "UPAGER_TEST_RUN"  # in the environment of everything that a run starts
MIB = 1 << 20
LIMIT_MINIMUM = 16 * MIB
SAMPLE_SECONDS = 0.02
END_SECONDS = 10  # from the program's end until nothing may be left


class Skip(Exception):
  """Why the test cannot run here."""


class Tap:
  def __init__(self):
    self.count = 0
    self.failed = 0

  def ok(self, condition, text, reason=""):
    self.count += 1
    self.failed += not condition
    print(f"{'ok' if condition else 'not ok'} {self.count} - {text}", flush=True)
    if not condition:
      self.note(reason)
    return condition

  def skip(self, text, reason):
    self.count += 1
    print(f"ok {self.count} - {text} # SKIP {reason}", flush=True)

  def note(self, text):
    for line in str(text).splitlines():
      print(f"# {line}", flush=True)


def python():
  """The system's interpreter if there is one: a version manager's shim is a shell script."""
  return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable


def read_text(path):
  with contextlib.suppress(OSError), open(path, errors="replace") as file:
    return file.read()
  return ""


def children(pid):
  """The process and its descendants, and those that left it but stayed in its session."""
  parents, sessions = {}, {}
  for entry in os.listdir("/proc"):
    if entry.isdigit():
      fields = read_text(f"/proc/{entry}/stat").rpartition(")")[2].split()
      if len(fields) > 3:
        parents[int(entry)] = int(fields[1])
        sessions[int(entry)] = int(fields[3])
  found = {p for p, session in sessions.items() if session == pid} | {pid}
  more = True
  while more:
    more = {p for p, parent in parents.items() if parent in found} - found
    found |= more
  return found


def anonymous_bytes(pid):
  match = re.search(r"^Pss_Anon:\s+(\d+) kB", read_text(f"/proc/{pid}/smaps_rollup"), re.M)
  return int(match.group(1)) * 1024 if match else 0


def marked(mark):
  """Processes that have the mark in their environment."""
  found = []
  for entry in os.listdir("/proc"):
    if entry.isdigit():
      with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
        if f"{MARK}={mark}".encode() in file.read().split(b"\0"):
          if "\nState:\tZ" not in read_text(f"/proc/{entry}/status"):
            found.append(int(entry))
  return found


def digest(path):
  """=> (sha256, bytes)"""
  sha = hashlib.sha256()
  size = 0
  with open(path, "rb") as file:
    while block := file.read(MIB):
      sha.update(block)
      size += len(block)
  return sha.hexdigest(), size


def find_counters(value):
  """The first "counters" object in what `upager run --json --stats` printed."""
  if isinstance(value, dict) and isinstance(value.get("counters"), dict):
    return value["counters"]
  inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
  return next(filter(None, map(find_counters, inner)), None)


class Run:
  """One run of a program, bare (memory is None) or under upager; for a with statement.

  => stdout and stderr are paths of files in `folder`; status, seconds and peak (bytes, sampled)
  are known after wait()."""

  def __init__(self, command, folder, memory=None, stdin=None, env=None):
    self.folder = tempfile.mkdtemp(prefix="paged-" if memory else "bare-", dir=folder)
    self.stdout = os.path.join(self.folder, "stdout")
    self.stderr = os.path.join(self.folder, "stderr")
    self.memory = memory
    self.paged = memory is not None and not NATIVE
    self.mark = uuid.uuid4().hex
    self.swap = os.path.join(self.folder, "swap")
    self.name = f"test-{self.mark[:12]}"
    if self.paged:
      command = [UPAGER, "run", "--memory", str(memory), "--swap", self.swap, "--name", self.name,
                 "--json", "--stats", "--", *command]
    self.command = command
    self.peak = 0
    self.pids = set()  # all that were seen of this run, its daemon among them
    self.status = None
    self.started = time.monotonic()
    with open(stdin or os.devnull, "rb") as source, open(self.stdout, "wb") as out, \
         open(self.stderr, "wb") as err:
      self.process = subprocess.Popen(
        command, stdin=source, stdout=out, stderr=err, start_new_session=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONHASHSEED": "0", **(env or {}), MARK: self.mark})
    self.sampler = threading.Thread(target=self.sample, daemon=True)
    self.sampler.start()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.kill()

  def sample(self):
    """Bare: the peak. Under upager the daemon holds the limit; only who belongs to the run."""
    while self.process.returncode is None:
      pids = children(self.process.pid)
      self.pids |= pids
      if not self.paged:
        self.peak = max(self.peak, sum(map(anonymous_bytes, pids)))
      time.sleep(1 if self.paged and len(pids) > 1 else SAMPLE_SECONDS)

  def wait(self, timeout):
    """=> the exit status, or None if there was no end in time; the program is ended then."""
    try:
      self.status = self.process.wait(timeout)
    except subprocess.TimeoutExpired:
      self.kill()
    self.seconds = time.monotonic() - self.started
    self.sampler.join()
    return self.status

  def kill(self):
    """Ends what still runs: gently, so that upager can clean up; then all that has our mark."""
    if self.process.poll() is None:
      self.process.terminate()
      with contextlib.suppress(subprocess.TimeoutExpired):
        self.process.wait(5)
    if self.process.poll() is None:
      self.process.kill()
      self.process.wait()
    for pid in marked(self.mark):
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

  def counters(self):
    """What --stats said at the end; {} if it said nothing."""
    text = read_text(self.stderr)
    for match in reversed(list(re.finditer(r"^\{", text, re.M))):
      with contextlib.suppress(ValueError):
        value, _ = json.JSONDecoder().raw_decode(text, match.start())
        if counters := find_counters(value):
          return counters
    return {}

  def live(self):
    """The group as `upager stat` shows it now, {} if it shows none."""
    done = subprocess.run([UPAGER, "stat", self.name, "--json"], capture_output=True, text=True,
                          timeout=30)
    with contextlib.suppress(ValueError):
      return json.loads(done.stdout) if done.returncode == 0 else {}
    return {}

  def leftovers(self):
    """What is still there though the program has ended. => waits for it to go, END_SECONDS."""
    deadline = time.monotonic() + END_SECONDS
    while (left := self.left_now()) and time.monotonic() < deadline:
      time.sleep(0.1)
    return left

  def left_now(self):
    left = [f"process {pid}: {read_text(f'/proc/{pid}/cmdline')!r}" for pid in marked(self.mark)]
    if os.path.exists(self.swap):
      left.append(f"swap file {self.swap}")
    if self.paged:
      left += [f"runtime directory {path}" for path in runtime_directories()
               if int(re.search(r"upager-(\d+)-", path).group(1)) in self.pids]
    return left

  def complaints(self):
    """The end of stderr, for a failed test."""
    return f"{' '.join(self.command)}\n{read_text(self.stderr)[-2000:]}"


def runtime_directories():
  """Those of embedded daemons; the name tells the daemon's pid."""
  return [path for path in glob.glob("/dev/shm/upager-*") if re.search(r"upager-\d+-", path)]


def difference(bare, paged):
  """Where two outputs part, for a person."""
  with open(bare, "rb") as a, open(paged, "rb") as b:
    for number, (x, y) in enumerate(zip(a, b), 1):
      if x != y:
        return f"line {number}: {x[:200]!r} without upager, {y[:200]!r} under it"
  return f"{os.path.getsize(bare)} bytes without upager, {os.path.getsize(paged)} under it"


def half_of(peak):
  return max(LIMIT_MINIMUM, peak // 2 & ~4095)


def report(tap, bare, paged):
  """The tests that every run under upager has to pass once both have ended."""
  counters = paged.counters()
  if not paged.paged:
    tap.skip("pages were evicted", "UPAGER_NATIVE is set")
  else:
    tap.ok(counters.get("evicted", 0) > 0, "pages were evicted",
           f"the statistics say {counters}\n{paged.complaints()}")
  left = paged.leftovers()
  tap.ok(not left, "nothing is left behind", "\n".join(left))
  shown = ("evicted", "pages_out", "pages_in", "zero", "minor", "major", "fork", "busy", "overruns")
  tap.note(f"without upager {bare.seconds:.1f} s, peak {bare.peak / MIB:.0f} MiB; "
           f"under {paged.memory / MIB:.0f} MiB {paged.seconds:.1f} s; "
           + ", ".join(f"{name} {counters[name]}" for name in shown if name in counters))


def compare(tap, prepare, label="", status=0, timeout=150, stdin=None, env=None):
  """Runs prepare(folder) → command (and its input file) bare and paged, and holds them together."""
  label = label and f"{label}: "
  with work_folder() as folder:
    command = prepare(folder)
    source = stdin and os.path.join(folder, stdin)
    with Run(command, folder, stdin=source, env=env) as bare:
      bare.wait(timeout)
    if not tap.ok(bare.status == status, f"{label}ends with status {status} without upager",
                  f"status {bare.status}\n{bare.complaints()}"):
      return
    if bare.peak < 2 * LIMIT_MINIMUM:
      tap.ok(False, f"{label}takes enough memory", f"its peak is {bare.peak / MIB:.0f} MiB only")
      return
    with Run(command, folder, memory=half_of(bare.peak), stdin=source, env=env) as paged:
      paged.wait(timeout)
      tap.ok(paged.status == bare.status, f"{label}ends with the same status under upager",
             f"status {paged.status} after {paged.seconds:.1f} s\n{paged.complaints()}")
      tap.ok(digest(bare.stdout) == digest(paged.stdout), f"{label}prints the same",
             difference(bare.stdout, paged.stdout))
      report(tap, bare, paged)


@contextlib.contextmanager
def work_folder():
  """A folder on a disk (not in memory, if that can be had), removed at the end."""
  folder = tempfile.mkdtemp(prefix="upager-test-", dir=os.environ.get("TMPDIR") or "/var/tmp")
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def need(*tools):
  """Asks for programs: names for $PATH, with the Debian package if it is called otherwise."""
  for tool in tools:
    name, _, package = tool.partition(":")
    if not shutil.which(name):
      raise Skip(f"{name} is not installed (apt-get install {package or name})")


def need_built(path):
  path = os.path.join(BUILD, path)
  if not os.access(path, os.X_OK):
    raise Skip(f"{path} is not built")
  return path


def main(test):
  """Runs test(tap) as a TAP program."""
  def on_signal(number, _frame):
    raise SystemExit(128 + number)

  signal.signal(signal.SIGTERM, on_signal)
  tap = Tap()
  try:
    if not NATIVE:
      need_built("client/upager")
    test(tap)
  except Skip as reason:
    if tap.count == 0:
      print(f"1..0 # SKIP {reason}")
      return
    tap.skip("the rest", str(reason))
  print(f"1..{tap.count}", flush=True)
  sys.exit(1 if tap.failed else 0)
