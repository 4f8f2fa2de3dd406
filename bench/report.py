"""What is kept of a run: the machine and the commit, the results as JSON, README.md's section."""

import json
import os
import platform
import re
import subprocess
import sys
import time

import figures
from kernel_swap import read_text

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = os.path.join(ROOT, "README.md")
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def filesystem_of(folder):
  """=> (device, type) of the file system that holds the folder."""
  best = ("", "?", "?")
  for line in read_text("/proc/self/mounts").splitlines():
    device, where, kind = line.split()[:3]
    inside = folder == where or folder.startswith(where.rstrip("/") + "/")
    if inside and len(where) >= len(best[0]):
      best = (where, device, kind)
  return best[1:]


def commit():
  done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
                        capture_output=True, text=True)
  return done.stdout.strip() or "unknown"


def environment(options):
  cpu = re.search(r"model name\s*:\s*(.*)", read_text("/proc/cpuinfo"))
  memory = re.search(r"MemTotal:\s*(\d+)", read_text("/proc/meminfo"))
  device, kind = filesystem_of(options.swap_dir)
  return {
    "commit": commit(),
    "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    "machine": {
      "kernel": platform.release(),
      "cpu": cpu.group(1) if cpu else "unknown",
      "cpus": len(os.sched_getaffinity(0)),
      "memory_bytes": int(memory.group(1)) * 1024 if memory else 0,
      "swap_device": device,
      "swap_filesystem": kind,
      "transparent_hugepage": read_text("/sys/kernel/mm/transparent_hugepage/enabled").strip(),
      "load_before": os.getloadavg()[0],
    },
  }


def write(path, text):
  with open(path + ".tmp", "w") as file:
    file.write(text)
  os.replace(path + ".tmp", path)


def write_results(folder, report):
  """=> the path of the JSON file; latest.json beside it is the same."""
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, f"{time.strftime('%Y%m%d-%H%M%S')}.json")
  for name in (path, os.path.join(folder, "latest.json")):
    write(name, json.dumps(report, indent=1) + "\n")
  return path


def markdown(report):
  machine = report["machine"]
  lines = [
    f"{machine['cpus']} processors ({machine['cpu']}), {machine['memory_bytes'] >> 30} GiB, Linux "
    f"{machine['kernel']}, {machine['swap_filesystem']}; commit {report['commit']}, "
    f"{report['date'][:10]}.", "",
    "| work | against | ratio | 95 % | goal | holds |", "|---|---|---|---|---|---|"]
  for cells in figures.lines_of(report["rows"]):
    work, against, _, ours, _, ratio, interval, goal, holds = cells
    shown = ours if ratio == "-" else ratio
    lines.append(f"| {work} | {against} | {shown} | {interval} | {goal} | {holds} |")
  return "\n".join(lines)


def write_readme(results, readme):
  """Puts a run's figures between the two marks. => exit status"""
  text, found = read_text(readme), read_text(results)
  if not found:
    sys.exit(f"bench: {results} is not there: run make bench first")
  before, begin, rest = text.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not begin or not end:
    sys.exit(f"bench: {readme} has no place for them ({BEGIN} … {END})")
  write(readme, f"{before}{BEGIN}\n{markdown(json.loads(found))}\n{END}{after}")
  return 0
