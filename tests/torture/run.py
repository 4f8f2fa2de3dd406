#!/usr/bin/env python3
"""The torture client under `upager run`: run.py --memory SIZE [--config JSON] [--snapshots] [--trace] --
TORTURE-OPTIONS

Besides the client's own verdict: pages must have left, every message must have one outcome, and
nothing may stay behind. Environment: UPAGER_BUILD, UPAGER_TORTURE (the client's path).
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "behaviour"))

import harness
import snapshot_file
import trace_file

SWAP = {"path": "swap", "size": "4G"}
EVERY = 0.3  # seconds
EXCUSES = ("has ended", "is no task", "is not evictable", "did not stand still", "no daemon listens",
           "went away", "another snapshot")


class Snapshots:
  """Snapshots of the client and its children, one after the other, while it runs."""

  def __init__(self, run):
    self.run, self.stalls, self.failed, self.wrong = run, [], 0, []
    self.path = os.path.join(run.folder, "file")
    self.end = threading.Event()
    self.thread = threading.Thread(target=self.loop, daemon=True)
    self.thread.start()

  def loop(self):
    while not self.end.wait(EVERY) and not self.wrong and self.run.process.poll() is None:
      listed = harness.upager("ps", "--json", run=self.run)
      if pids := [task["pid"] for task in json.loads(listed.stdout or "{}").get("tasks", ())
                  if task["pid"] and task["evictable"]]:
        self.take(random.choice(pids))

  def take(self, pid):
    done = harness.upager("snapshot", "--json", pid, "-o", self.path, run=self.run, timeout=60)
    if done.returncode:
      self.failed += 1
      if not any(excuse in done.stderr for excuse in EXCUSES):
        self.wrong.append(done.stderr)
      return
    try:
      snapshot_file.Snapshot(self.path)
      self.stalls.append(json.loads(done.stdout)["stall_us"] / 1000)
    except AssertionError as reason:
      self.wrong.append(f"a snapshot's file is wrong: {reason}")
    os.unlink(self.path)

  def check(self):
    self.end.set()
    self.thread.join()
    harness.must(not self.wrong, lambda: self.wrong[0])
    harness.must(self.stalls, f"none of {self.failed} snapshots came about")
    return (f"{len(self.stalls)} snapshots, {self.failed} refused; writers waited "
            f"{statistics.median(self.stalls):.1f} ms, {max(self.stalls):.1f} at most")


def check_trace(path, counters):
  """Of every fault the end, and as many as were counted; unless the disk was too slow for it."""
  trace = trace_file.Trace(path)
  size = os.path.getsize(path)
  os.unlink(path)
  if not trace.dropped:
    trace.complete()
    trace.agrees(counters)
  return (f"{trace.records} records of {size / trace.records:.1f} bytes, {trace.dropped} dropped, "
          f"{trace.counts['fault']} faults, {statistics.median(trace.latencies) / 1000:.0f} us each")


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--memory", required=True)
  parser.add_argument("--config", type=json.loads, default={})
  parser.add_argument("--evicts", action="store_true", help="it is wrong if no page leaves")
  parser.add_argument("--snapshots", action="store_true", help="take some all the time")
  parser.add_argument("--trace", action="store_true", help="record all of it")
  parser.add_argument("--timeout", type=float, default=100000)
  parser.add_argument("options", nargs="*")
  arguments = parser.parse_args()
  torture = os.environ.get("UPAGER_TORTURE") or os.path.join(harness.BUILD, "tests", "torture",
                                                             "torture")
  config = {"swap": [SWAP], "image_memory": "4M", "writeback_s": 1, **arguments.config}
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was borrowed is given back
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(harness.Skip):  # without them it does without
      stack.enter_context(harness.Pool(2 * 8))
    return torture_under(torture, config, arguments)


def torture_under(torture, config, arguments):
  with tempfile.TemporaryDirectory(prefix="upt-", dir="/var/tmp") as folder:
    return torture_traced(torture, config, arguments, os.path.join(folder, "trace"))


def torture_traced(torture, config, arguments, path):
  options = ("--trace", path) if arguments.trace else ()
  with harness.Run([torture, *arguments.options], memory=arguments.memory, config=config,
                   options=options) as run:
    snapshots = Snapshots(run) if arguments.snapshots else None
    try:
      run.wait(arguments.timeout)
      run.right(0, "torture: ok")
      if snapshots:
        print(snapshots.check())
      features = config.get("features", {})
      if not (features.get("move", True) and features.get("wp_unpopulated", True)):
        run.kept()
      elif arguments.evicts:
        run.evicted()
      run.balanced()
      if arguments.trace:
        print(check_trace(path, run.counters()))
      run.leave_nothing()
    except harness.Failed as reason:
      print(reason)
      return 1
    print(run.output().strip())
    counters = run.counters()
    print(", ".join(f"{key} {value}" for key, value in counters.items() if value))
  return 0


if __name__ == "__main__":
  sys.exit(main())
