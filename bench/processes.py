"""What a run has started: it is watched, and none of it outlives the run."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import threading
import time

from kernel_swap import read_text

SAMPLE_SECONDS = 0.02
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


class Failed(Exception):
  """A measurement that says nothing: the program failed, or read a wrong page."""


def parents():
  """=> pid → parent of every process."""
  found = {}
  for entry in os.listdir("/proc"):
    if entry.isdigit():
      fields = read_text(f"/proc/{entry}/stat").rpartition(")")[2].split()
      if len(fields) > 1:
        found[int(entry)] = int(fields[1])
  return found


def descendants(pid):
  """=> the process and all below it."""
  above = parents()
  found, size = {pid}, 0
  while len(found) != size:
    size = len(found)
    found |= {child for child, parent in above.items() if parent in found}
  return found


def named(pids, name):
  return [pid for pid in pids if read_text(f"/proc/{pid}/comm").strip() == name]


def cpu_ns(pids):
  """Time on a processor, of all threads that live."""
  total = 0
  for pid in pids:
    with contextlib.suppress(OSError):
      for thread in os.listdir(f"/proc/{pid}/task"):
        total += int((read_text(f"/proc/{pid}/task/{thread}/schedstat") or "0").split()[0])
  return total


def anonymous_bytes(pid):
  match = re.search(r"^Pss_Anon:\s+(\d+) kB", read_text(f"/proc/{pid}/smaps_rollup"), re.M)
  return int(match.group(1)) * 1024 if match else 0


def mappings(pid):
  """=> (name, proportional bytes) of each mapping."""
  name = ""
  for line in read_text(f"/proc/{pid}/smaps").splitlines():
    fields = line.split(maxsplit=5)
    if "-" in fields[0]:
      name = fields[5] if len(fields) > 5 else ""
    elif fields[0] == "Pss:":
      yield name, int(fields[1]) * 1024


def end_with_parent():
  """Called between fork and exec: whoever kills the harness shall not leave the program behind."""
  ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Program:
  """One program, in a session of its own; for a with statement, which ends it if it still runs.

  sample: keep its peak, the most anonymous memory that it and its children hold together."""

  def __init__(self, command, errors, timeout, before=None, sample=False, **options):
    self.command = command
    self.timeout = timeout
    self.timed_out = False
    self.peak = 0
    self.process = subprocess.Popen(
      command, stderr=errors, start_new_session=True,
      preexec_fn=lambda: (end_with_parent(), before and before()),
      **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, **options})
    self.pid = self.process.pid
    self.clock = threading.Timer(timeout, self.give_up)
    self.clock.daemon = True
    self.clock.start()
    if sample:
      threading.Thread(target=self.sample, daemon=True).start()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.stop()
    self.clock.cancel()
    for file in (self.process.stdin, self.process.stdout):
      with contextlib.suppress(OSError):
        if file:
          file.close()

  def give_up(self):
    self.timed_out = True
    self.kill()

  def kill(self):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)

  def sample(self):
    while self.process.returncode is None:
      self.peak = max(self.peak, sum(map(anonymous_bytes, descendants(self.pid))))
      time.sleep(SAMPLE_SECONDS)

  def line(self):
    return self.process.stdout.readline().strip()

  def say(self, text):
    self.process.stdin.write(text + "\n")
    self.process.stdin.flush()

  def wait(self, good=0):
    """Waits for its end; Failed, if it was not a good one."""
    status = self.process.wait()
    if self.timed_out:
      raise Failed(f"no end after {self.timeout} s: {' '.join(self.command)}")
    if status != good:
      raise Failed(f"status {status}: {' '.join(self.command)}")

  def stop(self):
    """Gently first, so that upager can clean up behind itself."""
    if self.process.poll() is None:
      self.process.terminate()
      try:
        self.process.wait(10)
      except subprocess.TimeoutExpired:
        self.kill()
    self.process.wait()
