"""What the tests of this directory share: TAP, a program under `upager run`, looks from outside.

Environment: UPAGER_BUILD is the build directory (default: build). UPAGER_NATIVE=1 leaves upager
out: that shows that the programs and the tests are right. UPAGER_JOBS is how many programs run at
once (default: the number of processors, at most 4). BEHAVE_ONLY is a regular expression of names.
"""

import concurrent.futures
import contextlib
import ctypes
import fcntl
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.environ.get("UPAGER_BUILD") or os.path.join(ROOT, "build"))
UPAGER = os.path.join(BUILD, "client", "upager")
BEHAVE = os.path.join(BUILD, "tests", "behaviour", "behave")
NATIVE = os.environ.get("UPAGER_NATIVE", "0") not in ("", "0")
JOBS = int(os.environ.get("UPAGER_JOBS") or min(4, os.cpu_count() or 1))
ONLY = os.environ.get("BEHAVE_ONLY")
SLOW = float(os.environ.get("UPAGER_SLOW") or 1)  # timeouts are multiplied: sanitizers
MARK = "UPAGER_TEST_RUN"  # in the environment of everything that a run starts
POOL = "/proc/sys/vm/nr_hugepages"
KIB, MIB = 1 << 10, 1 << 20
END_SECONDS = 10 * SLOW  # from the program's end until nothing may be left


class Skip(Exception):
  """Why a test cannot run here."""


class Failed(Exception):
  """What is wrong."""


def must(condition, reason):
  if not condition:
    raise Failed(reason() if callable(reason) else reason)


def read_text(path):
  with contextlib.suppress(OSError), open(path, errors="replace") as file:
    return file.read()
  return ""


def shorten(text, most):
  """The beginning and the end: what went wrong stands in the one, how it ended in the other."""
  return text if len(text) <= most else f"{text[:most * 2 // 3]}\n…\n{text[-most // 3:]}"


def wait_until(condition, seconds, what):
  """=> what the condition said when it was true."""
  end = time.monotonic() + seconds * SLOW
  while not (value := condition()):
    must(time.monotonic() < end, lambda: f"waited {seconds * SLOW:.0f} s for: {what() if callable(what) else what}")
    time.sleep(0.02)
  return value


# Processes

def marked(mark):
  """Living processes that have the mark in their environment."""
  found = []
  for entry in os.listdir("/proc"):
    if entry.isdigit():
      with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
        if f"{MARK}={mark}".encode() in file.read().split(b"\0"):
          if "\nState:\tZ" not in read_text(f"/proc/{entry}/status"):
            found.append(int(entry))
  return found


def descendants(pid):
  found, todo = [], [pid]
  while todo:
    parent = todo.pop()
    for path in glob.glob(f"/proc/{parent}/task/*/children"):
      children = [int(child) for child in read_text(path).split()]
      found += children
      todo += children
  return found


def same_memory(a, b):
  """Whether two processes share one address space: an agent is such a twin of its client."""
  return ctypes.CDLL(None).syscall(312, a, b, 1, 0, 0) == 0  # kcmp(KCMP_VM)


def runtime_directories():
  return [path for pattern in ("/run/upager-run/*", "/tmp/upager-run-*/*", "/dev/shm/upager*",
                               "/dev/shm/upager*/*") for path in glob.glob(pattern)]


def command_of(pid):
  return read_text(f"/proc/{pid}/comm").strip()


def pss_anon(pid):
  match = re.search(r"^Pss_Anon:\s+(\d+) kB", read_text(f"/proc/{pid}/smaps_rollup"), re.M)
  return int(match.group(1)) * KIB if match else 0


class Control:
  """A connection to a daemon's control socket: varlink, JSON objects ended by NUL."""

  def __init__(self, path):
    self.socket = socket.socket(socket.AF_UNIX)
    self.socket.settimeout(10 * SLOW)
    self.socket.connect(path)
    self.rest = b""
    self.lock = threading.Lock()

  def call(self, method, **parameters):
    message = {"method": f"io.upager.Pager.{method}", "parameters": parameters}
    with self.lock:
      self.socket.sendall(json.dumps(message).encode() + b"\0")
      while b"\0" not in self.rest:
        part = self.socket.recv(65536)
        must(part, "the daemon closed the control socket")
        self.rest += part
      reply, _, self.rest = self.rest.partition(b"\0")
    reply = json.loads(reply)
    must("error" not in reply, f"{method}: {reply}")
    return reply["parameters"]

  def daemon(self):
    pid, _, _ = __import__("struct").unpack(
      "3i", self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid

  def close(self):
    self.socket.close()


class Run:
  """A program under `upager run` on a private daemon; for a with statement.

  `config` is merged into the daemon's configuration; "swap" in it replaces the default swap file.
  """

  def __init__(self, command, memory="32M", swap_size="1G", config=None, env=None, options=()):
    self.folder = tempfile.mkdtemp(prefix="upt-", dir=os.environ.get("TMPDIR") or "/var/tmp")
    self.mark = uuid.uuid4().hex
    self.name = f"b-{self.mark[:10]}"
    self.swap = os.path.join(self.folder, "swap")
    self.socket = os.path.join(self.folder, "s")
    self.out, self.err = (os.path.join(self.folder, name) for name in ("out", "err"))
    self.result = os.path.join(self.folder, "result")
    self.control = None
    self.daemon_pid = 0
    self.memory = memory
    if not NATIVE:
      where = ["--swap", self.swap, "--swap-size", swap_size]
      if config is not None:
        config = dict(config)
        if "swap" in config:
          for swap in config["swap"]:
            swap["path"] = os.path.join(self.folder, swap["path"])
          where = []
        path = os.path.join(self.folder, "config.json")
        with open(path, "w") as file:
          json.dump(config, file)
        where += ["--config", path]
      command = [UPAGER, "run", "--memory", str(memory), *where, "--socket", self.socket,
                 "--name", self.name, "--stats", "--json", *options, "--", *command]
    self.command = [str(part) for part in command]
    self.started = time.monotonic()
    self.status = None
    with open(self.out, "wb") as out, open(self.err, "wb") as err:
      self.process = subprocess.Popen(
        self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
        env={**os.environ, **{"TMPDIR": self.folder, "BEHAVE_RESULT": self.result},
             **{key: str(value) for key, value in (env or {}).items()}, MARK: self.mark})

    if not NATIVE:
      threading.Thread(target=self.find_daemon, daemon=True).start()

  def find_daemon(self):
    """Its pid is part of the name of a directory that it must not leave behind."""
    while not self.daemon_pid and self.process.poll() is None:
      for pid in read_text(f"/proc/{self.process.pid}/task/{self.process.pid}/children").split():
        if command_of(pid) == "upagerd":
          self.daemon_pid = int(pid)
      time.sleep(0.01)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.end()
    shutil.rmtree(self.folder, ignore_errors=True)

  def connect(self):
    """=> the control connection of the private daemon."""
    def attempt():
      with contextlib.suppress(OSError):
        return Control(self.socket)
      must(self.process.poll() is None, lambda: f"upager ended with {self.process.returncode}: "
           + self.errors())
    if not self.control:
      self.control = wait_until(attempt, 10, "the daemon's control socket")
      self.daemon_pid = self.control.daemon()
    return self.control

  def group(self):
    groups = self.connect().call("List")["groups"]
    return next((group for group in groups if group["name"] == self.name), None)

  def program(self):
    """The program's pid: the child of `upager run` that is not the daemon."""
    if NATIVE:
      return self.process.pid
    def found():
      for line in glob.glob(f"/proc/{self.process.pid}/task/*/children"):
        for pid in map(int, read_text(line).split()):
          if command_of(pid) not in ("upagerd", "upager", ""):
            return pid
    return wait_until(found, 10, "the program to start")

  def clients(self):
    """Processes of the group, one for each address space."""
    found = []
    for pid in [self.program(), *descendants(self.program())]:
      if not any(same_memory(pid, other) for other in found):
        found.append(pid)
    return found

  def twins(self):
    """The agents of the program."""
    client = self.program()
    return [pid for pid in marked(self.mark) if pid != client and same_memory(pid, client)]

  def wait_ready(self, seconds=60):
    """Until the program has printed "ready"."""
    def ready():
      must(self.process.poll() is None, lambda: f"the program ended: {self.describe()}")
      return "ready" in self.output()
    wait_until(ready, seconds, lambda: f"the program to be ready: {self.describe()}")

  def wait(self, seconds=60):
    """=> the exit status, negative for a signal."""
    try:
      self.status = self.process.wait(seconds * SLOW)
    except subprocess.TimeoutExpired:
      raise Failed(f"no end after {seconds * SLOW:.0f} s: {self.describe()}\n{self.state()}") from None
    self.seconds = time.monotonic() - self.started
    return self.status

  def output(self):
    return read_text(self.out)

  def errors(self):
    return read_text(self.err)

  def describe(self):
    return (f"{' '.join(self.command)}\nstatus {self.process.poll()}\nstdout: "
            f"{shorten(self.output(), 2000)}\nstderr: {shorten(self.errors(), 12000)}")

  def state(self):
    """What the processes of the run are doing, for the report of a hang."""
    lines = []
    for pid in marked(self.mark):
      for task in glob.glob(f"/proc/{pid}/task/*"):
        lines.append(f"  {pid} {command_of(pid)} {os.path.basename(task)}: "
                     f"{read_text(task + '/wchan')} syscall {read_text(task + '/syscall').strip()}")
    with contextlib.suppress(Exception):
      lines.append(f"  group {self.group()}")
    return "\n".join(lines)

  def statistics(self):
    """The JSON that --stats --json printed last, {} if there is none."""
    for line in reversed(self.errors().splitlines()):
      if line.startswith("{"):
        with contextlib.suppress(ValueError):
          return json.loads(line)
    return {}

  def counters(self):
    return self.statistics().get("group", {}).get("counters", {})

  def end(self):
    """Ends what still runs."""
    if self.control:
      self.control.close()
    if self.process.poll() is None:
      self.process.terminate()
      with contextlib.suppress(subprocess.TimeoutExpired):
        self.process.wait(3 * SLOW)
    for pid in marked(self.mark):
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    self.process.wait()

  def left_now(self):
    left = [f"process {pid} ({command_of(pid)})" for pid in marked(self.mark)]
    left += [f"socket or swap {path}" for path in glob.glob(self.folder + "/s*")]
    for path in runtime_directories():
      if self.daemon_pid and f"/upager-{self.daemon_pid}-" in path:
        left.append(f"directory {path}")
      elif any(self.folder in read_text(os.path.join(path, name))
               for name in ("config.json", "run.json")):
        left.append(f"directory {path}")
    return left

  def leave_nothing(self):
    """=> fails if anything is still there some time after the end."""
    end = time.monotonic() + END_SECONDS
    while (left := self.left_now()) and time.monotonic() < end:
      time.sleep(0.1)
    must(not left, lambda: "left behind: " + ", ".join(left) + "\n" + self.describe())

  # What every run has to fulfil

  def right(self, status=0, output=None):
    must("WRONG BYTES" not in self.errors(), self.describe)
    must(self.status == status, lambda: f"status {self.status}, not {status}: {self.describe()}")
    if output is not None:
      must(output in self.output(), lambda: f"no \"{output}\" in the output: {self.describe()}")

  def evicted(self, at_least=1):
    if not NATIVE:
      must(self.counters().get("evicted", 0) >= at_least,
           lambda: f"evicted {self.counters().get('evicted')}, expected {at_least} or more: "
           f"{self.describe()}")

  def kept(self):
    """No page has left."""
    if not NATIVE:
      must(self.counters().get("evicted") == 0,
           lambda: f"evicted {self.counters().get('evicted')}, expected none: {self.describe()}")

  def balanced(self):
    """Every message had one outcome."""
    if not NATIVE and (counters := self.counters()):
      check_outcomes(counters)


def outcomes():
  text = read_text(os.path.join(ROOT, "src/mm/counters.h"))
  text = text.partition("define COUNTER_OUTCOMES")[2].partition("#define")[0]
  return re.findall(r"X\((\w+),", text)


def check_outcomes(counters):
  total = sum(counters.get(name, 0) for name in outcomes())
  must(total == counters.get("messages"), lambda: f"{counters.get('messages')} messages, but the "
       f"outcomes sum up to {total}: " + ", ".join(f"{n} {counters.get(n)}" for n in outcomes()))


def upager(*arguments, run, timeout=30):
  """Another upager command, at the daemon of `run`."""
  return subprocess.run([UPAGER, *map(str, arguments), "--socket", run.socket],
                        capture_output=True, text=True, timeout=timeout * SLOW)


def injected(folder):
  """=> a daemon that lets calls fail, or wait, when the program says so (tests/tree/inject.h)."""
  library = os.path.join(BUILD, "tests", "tree", "libupager-inject.so")
  daemon = os.environ.get("UPAGERD") or os.path.join(BUILD, "daemon", "upagerd")
  path = os.path.join(folder, "upagerd")
  with open(path, "w") as file:
    file.write(f"#!/bin/sh\nUPAGER_INJECT=$TMPDIR/inject LD_PRELOAD={library} exec {daemon} \"$@\"\n")
  os.chmod(path, 0o755)
  return path


def behave(name, mib=64, **kwargs):
  return Run([BEHAVE, name, mib], **kwargs)


# Reserved huge pages

class Pool:
  """More reserved huge pages, for a with statement."""

  living = set()

  def __init__(self, pages):
    self.pages = pages

  def add(self, pages):
    with open(POOL, "r+") as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      before = int(file.read())
      file.seek(0)
      file.write(str(before + pages))
      file.flush()
      self.added = int(read_text(POOL)) - before

  def __enter__(self):
    try:
      self.add(self.pages)
    except OSError as error:
      raise Skip(f"{POOL}: {error.strerror}") from None
    if self.added < self.pages:
      self.add(-self.added)
      raise Skip(f"no {self.pages} huge pages for the pool")
    Pool.living.add(self)
    self.free = int(re.search(r"HugePages_Free: *(\d+)", read_text("/proc/meminfo"))[1])
    return self

  def __exit__(self, *_):
    Pool.living.discard(self)
    self.add(-self.pages)


# TAP

class Tap:
  def __init__(self):
    self.count = self.failed = 0
    self.lock = threading.Lock()

  def report(self, name, test):
    """Runs test() and prints its line; what it returns is a remark."""
    lines, failed = [], False
    started = time.monotonic()
    try:
      remark = test()
      verdict = "ok"
    except Skip as reason:
      verdict, remark = "ok", f"# SKIP {reason}"
    except Failed as reason:
      verdict, remark, failed = "not ok", None, True
      lines = str(reason).splitlines()
    except Exception:
      verdict, remark, failed = "not ok", None, True
      lines = traceback.format_exc().splitlines()
    seconds = time.monotonic() - started
    with self.lock:
      self.count += 1
      self.failed += failed
      suffix = remark if remark and remark.startswith("# SKIP") else f"({seconds:.1f} s)"
      print(f"{verdict} {self.count} - {name} {suffix}", flush=True)
      for line in lines:
        print(f"# {line}", flush=True)
      if remark and not remark.startswith("# SKIP"):
        print(f"# {remark}", flush=True)


def main(tests, alone=()):
  """Runs tests, pairs of name and function, several at once; then those that need quiet."""
  def on_signal(number, _frame):
    for pool in list(Pool.living):
      pool.__exit__()
    os._exit(128 + number)

  signal.signal(signal.SIGTERM, on_signal)
  tap = Tap()
  if not NATIVE and not os.access(UPAGER, os.X_OK):
    print(f"1..0 # SKIP {UPAGER} is not built")
    return
  chosen = lambda all: [(n, t) for n, t in all if not ONLY or re.search(ONLY, n)]
  with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
    list(pool.map(lambda pair: tap.report(*pair), chosen(tests)))
  for name, test in chosen(alone):
    tap.report(name, test)
  print(f"1..{tap.count}", flush=True)
  sys.exit(1 if tap.failed else 0)
