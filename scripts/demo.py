#!/usr/bin/env python3
"""A redis-server in a quarter of the memory that its data takes, while one watches.

Fills it with keys whose values can be computed again, reads every one of them back and compares.
DEMO_MB: how much data (default 400). UPAGER_BUILD: the build directory (default: build).
"""
import hashlib, json, os, shutil, signal, socket, subprocess, sys, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("UPAGER_BUILD", os.path.join(ROOT, "build")))
UPAGER = os.path.join(BUILD, "client", "upager")
MIB = 1 << 20
VALUE = 4000  # bytes; with redis' own header it fills a page-sized cell of its allocator
MEGABYTES = int(os.environ.get("DEMO_MB", "400"))
KEYS = MEGABYTES * MIB // 4096
LIMIT = MEGABYTES // 4
NAME = f"demo-{os.getpid()}"
BATCH = 256
TICK = 0.25  # seconds between progress lines


class Failed(Exception):
  pass


def key(i):
  return b"key:%07d" % i


def value(i):
  """Bytes that neither repeat nor compress, and depend on the key alone."""
  return hashlib.shake_128(b"upager demo %d" % i).digest(VALUE)


def command(*words):
  return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Stat:
  """What `upager stat --json` says, and a line that shows it."""

  def __init__(self):
    self.group, self.task, self.total = {}, "", 0
    self.done = 0
    self.tty = sys.stderr.isatty()
    self.stop = threading.Event()
    self.thread = threading.Thread(target=self.watch)

  def refresh(self):
    result = subprocess.run([UPAGER, "stat", "--json", NAME], capture_output=True, text=True)
    if result.returncode == 0:
      self.group = json.loads(result.stdout)["groups"][0]
    return self.group

  def line(self):
    counters = self.group.get("counters", {})
    faults = sum(counters.get(name, 0) for name in ("zero", "minor", "major"))
    percent = 100 * self.done // self.total if self.total else 0
    return (f"{self.task:<9} {percent:3d} %   resident {mib(self.group.get('resident', 0)):>9}"
            f"   evicted {mib(self.group.get('evicted', 0)):>9}   faults {faults:>9,}")

  def watch(self):
    tick = 0
    while not self.stop.wait(TICK):
      self.refresh()
      tick += 1
      if self.tty:
        print("\r" + self.line(), end="\x1b[K", file=sys.stderr, flush=True)
      elif tick % 20 == 0:
        print(self.line(), file=sys.stderr, flush=True)

  def begin(self, task, total):
    self.task, self.total, self.done = task, total, 0

  def end(self):
    self.refresh()
    print(("\r" if self.tty else "") + self.line(), end="\x1b[K\n" if self.tty else "\n",
          file=sys.stderr, flush=True)


def mib(size):
  return f"{size / MIB:,.1f} MiB"


def start(directory):
  path = os.path.join(directory, "redis.sock")
  log = open(os.path.join(directory, "log"), "w+")
  run = subprocess.Popen(
      [UPAGER, "run", "--memory", f"{LIMIT}M", "--name", NAME, "--", "redis-server", "--port",
       "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", directory],
      stdin=subprocess.DEVNULL, stdout=log, stderr=log)
  while True:
    connection = socket.socket(socket.AF_UNIX)
    try:
      connection.connect(path)
      connection.sendall(command(b"PING"))
      if connection.recv(64) == b"+PONG\r\n":
        return run, connection, path
    except OSError:
      pass
    connection.close()
    if run.poll() is not None:
      log.seek(0)
      raise Failed("redis-server did not start under upager:\n" + log.read().strip())
    time.sleep(0.02)


def load(path, stat):
  """redis-cli --pipe, fed from here."""
  stat.begin("loading", KEYS)
  pipe = subprocess.Popen(["redis-cli", "-s", path, "--pipe"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  try:
    for first in range(0, KEYS, BATCH):
      last = min(first + BATCH, KEYS)
      pipe.stdin.write(b"".join(command(b"SET", key(i), value(i))
                                for i in range(first, last)))
      stat.done = last
    output = pipe.communicate()[0].decode(errors="replace")
  except BrokenPipeError:
    output = pipe.communicate()[0].decode(errors="replace")
  if pipe.returncode or f"errors: 0, replies: {KEYS}" not in output:
    raise Failed("redis-cli could not load the data:\n" + output.strip())
  stat.end()


def read_exactly(stream, size):
  data = stream.read(size)
  if len(data) != size:
    raise Failed("redis-server closed the connection")
  return data


def read_bulk(stream):
  head = stream.readline()
  if not head.startswith(b"$"):
    raise Failed(f"redis-server answered {head!r}")
  if int(head[1:]) < 0:
    return None
  return read_exactly(stream, int(head[1:]) + 2)[:-2]


def verify(connection, stat):
  stat.begin("verifying", KEYS)
  stream = connection.makefile("rb", buffering=MIB)
  wrong = 0
  for first in range(0, KEYS, BATCH):
    last = min(first + BATCH, KEYS)
    connection.sendall(b"".join(command(b"GET", key(i)) for i in range(first, last)))
    wrong += sum(read_bulk(stream) != value(i) for i in range(first, last))
    stat.done = last
  stat.end()
  if wrong:
    raise Failed(f"{wrong} of {KEYS} values are wrong")


def used_memory(connection):
  connection.sendall(command(b"INFO", b"memory"))
  with connection.makefile("rb") as stream:
    info = read_bulk(stream).decode()
  return int(info.split("used_memory:")[1].split()[0])


def table(group, data, seconds):
  counters = group.get("counters", {})
  rows = [("data set", mib(data), f"{KEYS:,} keys, every value right"),
          ("limit", mib(group["limit"]), ""),
          ("resident", mib(group["resident"]), "at the end"),
          ("peak", mib(group["peak"]), ""),
          ("zero faults", f"{counters.get('zero', 0):,}", "first touches"),
          ("minor faults", f"{counters.get('minor', 0):,}", "without I/O"),
          ("major faults", f"{counters.get('major', 0):,}", "read from swap"),
          ("out", mib(4096 * counters.get("pages_out", 0)), "written to swap"),
          ("in", mib(4096 * counters.get("pages_in", 0)), "read from swap"),
          ("time", f"{seconds:.1f} s", "loading and verifying")]
  width = max(len(figure) for _, figure, _ in rows)
  print()
  for name, figure, meaning in rows:
    print(f"  {name:<13}{figure:>{width}}  {meaning}".rstrip())


def demonstrate(directory):
  print(f"redis-server with {MEGABYTES} MiB of data in {LIMIT} MiB of memory")
  run, connection, path = start(directory)
  stat = Stat()
  try:
    begin = time.monotonic()
    stat.thread.start()
    load(path, stat)
    verify(connection, stat)
    seconds = time.monotonic() - begin
    table(stat.refresh(), used_memory(connection), seconds)
  except OSError as error:
    raise Failed(f"redis-server went away: {error}") from error
  finally:
    stat.stop.set()
    if stat.thread.is_alive():
      stat.thread.join()
    end(run)


def end(run):
  if run.poll() is None:
    run.send_signal(signal.SIGTERM)
    try:
      run.wait(20)
    except subprocess.TimeoutExpired:
      run.kill()
      run.wait()


def main():
  def interrupted(number, _):
    raise KeyboardInterrupt(number)

  for name in ("SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), interrupted)
  directory = tempfile.mkdtemp(prefix="upager-demo-")
  try:
    demonstrate(directory)
  except Failed as failure:
    sys.exit(f"\ndemo: {failure}")
  except KeyboardInterrupt:
    print("\ninterrupted", file=sys.stderr)
    sys.exit(130)
  finally:
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
  main()
