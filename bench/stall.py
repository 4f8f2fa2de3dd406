#!/usr/bin/env -S python3 -B
"""How long a program stands still for a snapshot, beside fork() of the same program.

A thread writes to one page after the other while the snapshot is taken: the longest of its writes is
what it noticed, "protecting" what the daemon says that writers waited. fork() is called by the same
process (fork), and by one that runs without upager (bare fork), which before that has written to its
memory; upager_snapshot() in its place (call). The figures are medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1 << 20


class Program:
  def __init__(self, command):
    self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    self.answer()

  def answer(self):
    line = self.process.stdout.readline().strip()
    if not line:
      sys.exit(f"stall: the program ended with {self.process.wait()}")
    return line

  def ask(self, word):
    self.process.stdin.write(word + "\n")
    self.process.stdin.flush()
    return self.answer()

  def end(self):
    self.process.stdin.close()
    self.process.wait(60)


def measure(build, mib, rounds, folder):
  stall = [os.path.join(build, "bench", "stall"), str(mib * MIB)]
  upager = os.path.join(build, "client", "upager")
  socket, path = os.path.join(folder, "s"), os.path.join(folder, "snapshot")
  bare = Program(stall)
  bare_forks = [int(bare.ask("fork")) for _ in range(rounds)]
  bare.end()
  paged = Program([upager, "run", "--memory", f"{mib * 2 + 256}M", "--socket", socket, "--",
                   *stall])
  forks = [int(paged.ask("fork")) for _ in range(rounds)]
  calls = [int(paged.ask("snapshot")) for _ in range(rounds)]
  groups = json.loads(subprocess.run([upager, "ps", "--json", "--socket", socket], check=True,
                                     capture_output=True).stdout)
  pid = next(task["pid"] for task in groups["tasks"] if task["resident"] > mib * MIB // 2)
  writes, stalls = [], []
  for _ in range(rounds):
    paged.ask("watch")
    done = subprocess.run([upager, "snapshot", "--json", "--socket", socket, str(pid), "-o", path],
                          check=True, capture_output=True)
    writes.append(int(paged.ask("longest")))
    stalls.append(json.loads(done.stdout)["stall_us"] * 1000)
    os.unlink(path)
  paged.end()
  return [statistics.median(values) for values in (bare_forks, forks, calls, stalls, writes)]


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--sizes", default="64,256,1024,4096", metavar="MIB,…")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--folder", default="/dev/shm", help="where the snapshots are written")
  parser.add_argument("--build", default=os.environ.get("UPAGER_BUILD",
                                                        os.path.join(ROOT, "build")))
  options = parser.parse_args()
  print(f"{'':>9}  {'bare fork':>10}  {'fork':>10}  {'call':>10}  {'protecting':>10}  "
        f"{'longest write':>13}  ratio")
  for mib in map(int, options.sizes.split(",")):
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
      figures = measure(options.build, mib, options.rounds, folder)
    fork, _, _, _, write = figures
    print(f"{mib:>5} MiB  " + "  ".join(f"{value / 1e6:>{width}.2f} ms" for value, width in
          zip(figures, (7, 7, 7, 7, 10))) + f"  {write / fork:.2f}", flush=True)


if __name__ == "__main__":
  main()
