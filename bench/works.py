"""The kinds of work that are measured. Each runs one program on one side, and returns what it
timed.

A work is prepared once (inputs, and how much memory it takes), and then run as often as asked for.
The result is a dictionary; its figures are looked up by name. What was read is checked in every run:
by the program itself (`wrong`), or by the digest of its output, which has to be the same in all.
"""

import collections
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time

import processes
from kernel_swap import MIB, Unavailable
from processes import Failed

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = os.path.join(ROOT, "tests", "programs")  # real programs and their inputs
sys.path.append(PROGRAMS)


class Work:
  """size: bytes of its set, None until prepare() has found out."""

  config = None  # of our side
  size = None

  def prepare(self, job):
    """Called once, with a job on the bare side. May raise Unavailable."""

  def run(self, job):
    raise NotImplementedError


class Workset(Work):
  """bench/workset: memory is filled, then touched in some order; the second phase alone counts.

  On our side the daemon is looked at as that phase begins and ends."""

  TOUCHES = (1 << 18, 1 << 13)  # at most, in a random order: enough to tell, of a set of any size

  def __init__(self, *args, passes=1, bounded=False, config=None):
    self.args = list(args)
    self.passes = passes
    self.bounded = bounded
    self.config = config

  def touches(self, job):
    touches = self.passes * (job.size // 4096)
    return min(touches, self.TOUCHES[job.bench.quick]) if self.bounded else touches

  def command(self, job):
    return [job.built("bench", "workset"), "--size", str(job.size), "--touches",
            str(self.touches(job)), *self.args, "--verify", "--steps", "--json"]

  def run(self, job):
    looks = []
    with job.start(self.command(job), stdin=subprocess.PIPE) as program:
      for word in ("ready", "measured"):
        if program.line() != word:
          job.end(program)
          raise Failed(f"never {word}: {' '.join(program.command)}")
        looks.append(look(program, job) if job.side_name == "ours" else None)
        program.say("")
      output = program.line()
      job.end(program)
    result = parse(output, program)
    result["touch_ns"] = ((result["setup_ns"] + result["measured_ns"])
                          / (self.touches(job) + job.size // 4096))
    if looks[0]:
      result.update(between(*looks))
    return result


def parse(output, program):
  try:
    result = json.loads(output)
  except ValueError as error:
    raise Failed(f"no JSON from {' '.join(program.command)}: {output!r}") from error
  return result


def look(program, job):
  """=> what the daemon has done and what it holds at this moment."""
  family = processes.descendants(program.pid)
  daemons = processes.named(family, "upagerd")
  done = subprocess.run([job.bench.upager, "stat", "--json", job.name], capture_output=True,
                        text=True)
  if done.returncode or not daemons:
    raise Failed(f"upager stat: {done.stderr.strip() or 'there is no daemon'}")
  group = json.loads(done.stdout)["groups"][0]
  return {"cpu_ns": processes.cpu_ns(daemons + processes.named(family, "upager-agent")),
          "group": group, "memory": memory_of(daemons[0], family)}


def memory_of(daemon, family):
  """=> bytes of ours: the daemon with its state files, the supervisor, and the shim in each program.

  Frames and staging windows are not counted here: they are part of what the limit holds. Agents share
  the program's memory; what is theirs in it is shared anonymous."""
  total, files = 0, set()
  for name, size in processes.mappings(daemon):
    if "/state/" in name:
      files.add(name)
    elif "upager-exchange" not in name:
      total += size
  for path in files:
    total += os.stat(path).st_blocks * 512
  for pid in family - {daemon, *processes.named(family, "upager-agent")}:
    supervisor = pid in processes.named([pid], "upager")
    total += sum(size for name, size in processes.mappings(pid)
                 if supervisor or "libupager" in name or "/dev/zero" in name)
  return total


def between(first, last):
  before, after = (look["group"]["counters"] for look in (first, last))
  moved = {name: after[name] - before[name] for name in after}
  cpu = last["cpu_ns"] - first["cpu_ns"]
  pages = moved["evicted"] + moved["pages_in"]
  faults = moved["major"] + moved["minor"] + moved["zero"] + moved["wp_reuse"] + moved["parked"]
  return {"phase": moved, "cpu_ns": cpu, "memory": last["memory"],
          "resident": last["group"]["resident"], "evicted": last["group"]["evicted"],
          "cpu_per_page": cpu / pages if pages else None,
          "cpu_per_fault": cpu / faults if faults else None}


class Memory(Work):
  """What the pager itself holds, in three runs: of nearly nothing, of a set that is resident (and
  registered), and of one most of which is evicted."""

  config = {"register": "eager"}

  def __init__(self, bytes_=1 << 30):
    self.full = bytes_

  def prepare(self, job):
    # Of fewer, an evicted page's part would be mostly what a task has once: its frames' records.
    self.size = self.full // 4 if job.bench.quick else self.full

  def held(self, job, size, limit):
    run = Workset("--pattern", "sequential", "--op", "readwrite", config=self.config)
    found = run.run(job.like(run, size, limit))
    return found["memory"], found["resident"] / 4096, found["evicted"] / 4096

  def run(self, job):
    fixed, _, _ = self.held(job, MIB, 2 * self.size)
    full, resident, _ = self.held(job, self.size, 2 * self.size)
    thin, left, evicted = self.held(job, self.size, self.size // 8)
    each = (full - fixed) / resident
    return {"fixed": fixed, "resident": each, "evicted": (thin - fixed - each * left) / evicted,
            "bytes": [fixed, full, thin], "pages": [resident, left, evicted]}


class Latency(Work):
  """bench/latency: how long a single fault takes, as the program sees it."""

  def __init__(self, kind, *args, config=None, counter=None):
    self.kind = kind
    self.args = args
    self.config = config
    self.counter = counter
    self.samples = 0

  def prepare(self, job):
    self.samples = 512 if job.bench.quick else 4096
    self.size = 32 * MIB if self.kind != "zero" else 512 * MIB
    self.expect = {self.counter: self.samples} if self.counter else {}

  def run(self, job):
    with job.start([job.built("bench", "latency"), self.kind, str(self.samples),
                    *self.args]) as program:
      output = program.line()
      job.end(program)
    return parse(output, program)


class Command(Work):
  """A real program, from its start to its end, with a fixed input; its output is digested.

  make(folder, scale) => the command, and the path of its input or None. quick: the scale of a quick
  run, which still takes 32 MiB and more."""

  def __init__(self, make, quick, status=0):
    self.make = make
    self.quick = quick
    self.status = status
    self.command = self.input = None

  def prepare(self, job):
    folder = os.path.join(job.bench.folder, job.row.slug)
    os.makedirs(folder, exist_ok=True)
    self.command, self.input = self.make(folder, self.quick if job.bench.quick else 1)
    self.size = self.run(job.sampling())["peak"]

  def run(self, job):
    sha = hashlib.sha256()
    with open(self.input or os.devnull, "rb") as source:
      started = time.monotonic()
      with job.start(self.command, stdin=source, text=False,
                     env={**os.environ, "LC_ALL": "C", "PYTHONHASHSEED": "0"}) as program:
        while block := program.process.stdout.read(MIB):
          sha.update(block)
        job.end(program, self.status)
        took = time.monotonic() - started
    return {"ns": took * 1e9, "digest": sha.hexdigest(), "peak": program.peak}


class Redis(Work):
  """redis-server, filled to its size, then redis-benchmark: GET, and SET, of keys at random.

  After each every key is read: it has the value that it was loaded with, or redis-benchmark's."""

  VALUE = 4000
  CLIENTS = 8

  def __init__(self, full):
    self.full = full
    self.keys = self.requests = 0

  def prepare(self, job):
    for tool in ("redis-server", "redis-benchmark"):
      need(tool)
    size = self.full // 14 if job.bench.quick else self.full
    self.keys = size // (self.VALUE + 120)
    self.requests = self.keys // 2
    self.size = self.run(job.sampling())["peak"]

  def value(self, key):
    return hashlib.shake_128(b"%d" % key).digest(self.VALUE)

  def run(self, job):
    import redis_client
    socket = os.path.join(job.bench.folder, f"redis-{job.name}.sock")
    command = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir",
               job.bench.folder, "--daemonize", "no"]
    with job.start(command, stdout=subprocess.DEVNULL) as program:
      try:
        with redis_client.connect(socket, lambda: program.process.poll() is None,
                                  job.bench.timeout) as client:
          result = self.work(client, socket)
          client.socket.sendall(redis_client.encode(("SHUTDOWN", "NOSAVE")))
      except (redis_client.RedisError, OSError) as error:
        raise Failed(f"redis-server: {error}") from error
      job.end(program)
    result["peak"] = program.peak
    return result

  def work(self, client, socket):
    commands = (("SET", f"key:{key:012}", self.value(key)) for key in range(self.keys))
    wrong = sum(reply != b"OK" for reply in client.pipeline(commands))
    result = {}
    for name in ("get", "set"):
      result.update(self.measure(name, socket))
      wrong += self.wrong_values(client, name == "set")
    return {**result, "wrong": wrong}

  def measure(self, name, socket):
    done = subprocess.run(
      ["redis-benchmark", "-s", socket, "-t", name, "-n", str(self.requests), "-r", str(self.keys),
       "-d", str(self.VALUE), "-c", str(self.CLIENTS), "--csv"], capture_output=True, text=True)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    if done.returncode or len(rows) != 1:
      raise Failed(f"redis-benchmark: {done.stdout}{done.stderr}")
    return {f"{name}_ns": 1e9 / float(rows[0]["rps"]),
            f"{name}_p99_ns": float(rows[0]["p99_latency_ms"]) * 1e6}

  def wrong_values(self, client, written):
    """How many keys have another value than they may have: what redis-benchmark writes is one value,
    the same everywhere."""
    replies = client.pipeline(("GET", f"key:{key:012}") for key in range(self.keys))
    others = collections.Counter(reply for key, reply in enumerate(replies)
                                 if reply != self.value(key))
    if written:
      others.pop(next((value for value, _ in others.most_common(1)
                       if value is not None and len(value) == self.VALUE), None), None)
    return others.total()


def need(tool, package=None):
  if not shutil.which(tool):
    raise Unavailable(f"{tool} is not installed (apt-get install {package or tool})")


def of_tests(module, tool, source=None):
  """=> make() of a Command: the program of tests/programs/test_MODULE.py."""
  def make(folder, scale):
    need(tool)
    command = __import__(f"test_{module}").prepare(folder, scale)
    return command, source and os.path.join(folder, source)
  return make


def python_dict(_folder, scale):
  import common
  return [common.python(), os.path.join(PROGRAMS, "prog_dict.py"), str(scale)], None
