"""The sides of a comparison: how a command is run by each, and what has to be true afterwards.

A side is opened when the first row needs it. Of the two kernel sides one is open at a time, since
the kernel takes whichever swap area is there.
"""

import json
import os
import subprocess

import kernel_swap
from kernel_swap import Unavailable
from processes import Failed


class Bare:
  """The program alone."""

  label = "without upager"

  def __init__(self, bench):
    self.bench = bench

  def open(self):
    """May raise Unavailable; close() may follow, and be called twice."""

  def close(self):
    pass

  def wrap(self, command, _job):
    return command

  def before(self, _job):
    """=> what is called in the child between fork and exec, or None."""
    return None

  def check(self, result, job):
    """Raises Failed if the result is not what the side is for."""


class Ours(Bare):
  label = "upager"

  def __init__(self, bench):
    super().__init__(bench)
    self.swap = os.path.join(bench.folder, "upager.swap")
    self.configs = {}

  def open(self):
    if not self.bench.upager:
      raise Unavailable("only the kernel was asked for")
    if not os.path.exists(self.swap):
      kernel_swap.write_file(self.swap, self.bench.swap_size)

  def close(self):
    if os.path.exists(self.swap):
      os.unlink(self.swap)

  def has(self, option):
    """Whether this build's `upager run` knows the option."""
    return option in subprocess.run([self.bench.upager, "run", "--help"], capture_output=True,
                                    text=True).stdout

  def config(self, values):
    """=> the path of a file that holds this configuration."""
    text = json.dumps(values)
    if text not in self.configs:
      self.configs[text] = os.path.join(self.bench.folder, f"config-{len(self.configs)}.json")
      with open(self.configs[text], "w") as file:
        file.write(text)
    return self.configs[text]

  def wrap(self, command, job):
    options = ["--memory", str(job.limit), "--swap", self.swap, "--name", job.name]
    if job.row.compressed:
      options += ["--compressed", str(self.bench.swap_size)]
    if job.config:
      options += ["--config", self.config(job.config)]
    return [self.bench.upager, "run", *options, "--json", "--stats", "--", *command]

  def check(self, result, job):
    result["counters"] = find_counters(job.errors())
    if job.row.pages and not result["counters"].get("evicted"):
      raise Failed("upager evicted nothing: the limit was not in force")
    for name, least in getattr(job.work, "expect", {}).items():
      if result["counters"].get(name, 0) < least:
        raise Failed(f"{name} is {result['counters'].get(name)}, not {least} or more: what was "
                     "measured is something else")


class Kernel(Bare):
  """A cgroup with the same limit, and a swap area."""

  def __init__(self, bench, label, area):
    super().__init__(bench)
    self.label = label
    self.area = area
    self.kernel = None

  def open(self):
    if self.kernel:
      return
    if self.bench.options.only == "upager":
      raise Unavailable("only upager was asked for")
    self.bench.close_kernel()
    self.kernel = kernel_swap.KernelSwap(self.area(self.bench.swap_folder, self.bench.swap_size))
    try:
      self.kernel.__enter__()
    except BaseException:
      self.kernel = None
      raise
    self.bench.report["kernel_swap"] = self.kernel.describe()

  def close(self):
    if self.kernel:
      self.kernel.close()
      self.kernel = None

  def before(self, job):
    self.kernel.cgroup.set_limit(job.limit, self.bench.swap_size)
    return self.kernel.cgroup.enter

  def check(self, result, job):
    if job.row.pages and result.get("major_faults") == 0:
      raise Failed("the kernel swapped nothing in: the limit was not in force")


def make_sides(bench):
  """=> name → side."""
  return {
    "ours": Ours(bench),
    "bare": Bare(bench),
    "swap": Kernel(bench, "swap file", kernel_swap.SwapFile),
    "zram": Kernel(bench, "zram lz4", kernel_swap.Zram),
  }


def find_counters(text):
  """The counters in what `upager run --json --stats` wrote, {} if there are none."""
  for line in reversed(text.splitlines()):
    if line.startswith("{"):
      return json.loads(line).get("group", {}).get("counters", {})
  return {}
