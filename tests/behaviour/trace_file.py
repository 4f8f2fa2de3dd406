"""Traces, as `upager trace --convert` writes them: what every one has to fulfil."""

import collections
import json
import subprocess

from harness import UPAGER, must, outcomes

# What is counted, and how a trace tells the same.
PAGES = {"evicted": ("evicted", "left"), "pages_out": ("written", "pages"),
         "pages_in": ("read_done", "pages"), "readahead_lost": ("read_lost", "pages")}
EVENTS = ("fork", "remap", "unmap", "remove")


def convert(path, form):
  done = subprocess.run([UPAGER, "trace", "--convert", form, path], capture_output=True, text=True,
                        timeout=120)
  must(done.returncode == 0, done.stderr)
  return done.stdout, done.stderr


def field(words, name, default="0"):
  return int(words[words.index(name) + 1] if name in words else default)


class Trace:
  def __init__(self, path):
    text, said = convert(path, "text")
    self.path, self.whole = path, "has no end" not in said
    self.counts, self.sums, self.latencies = collections.Counter(), collections.Counter(), []
    self.outcomes, self.dropped, self.records = collections.Counter(), 0, 0
    last = -1.0
    for line in text.splitlines()[1:]:
      time, kind, *words = line.split()
      must(float(time) >= last, f"time goes back: {line}")
      last = float(time)
      self.counts[kind] += 1
      self.records += kind not in ("done", "left", "cut", "end")
      if kind == "outcome":
        self.outcomes[words[words.index("after") - 1]] += 1
      for name, (of, what) in PAGES.items():
        if kind == of and not (kind == "written" and field(words, "error")):
          self.sums[name] += field(words, what)
      if kind == "done":
        self.latencies.append(int(words[-2]))
      if kind == "end":
        must(field(words, "records") == self.records, f"{self.records} records, but: {line}")
        self.dropped = field(words, "dropped")

  def complete(self):
    """Every fault that began has ended."""
    must(self.whole and not self.dropped, f"{self.path}: {self.dropped} dropped")
    ended = self.counts["done"] + self.counts["left"]  # left: for a signal
    must(not self.counts["cut"] and self.counts["fault"] == ended,
         f"{self.counts['fault']} faults began, {ended} ended, {self.counts['cut']} were cut")

  def agrees(self, counters):
    """It tells of as many as were counted."""
    wrong = []
    for name in outcomes():
      told = self.counts[name] if name in EVENTS else self.outcomes[name]
      # Of a task that has ended there is no outcome but its end.
      if name != "gone" and told != counters.get(name, 0):
        wrong.append(f"{name} {told}, counted {counters.get(name)}")
    wrong += [f"{name} {self.sums[name]}, counted {counters.get(name)}" for name in PAGES
              if self.sums[name] != counters.get(name, 0)]
    must(not wrong, "; ".join(wrong))

  def nests(self):
    """=> how many slices the JSON has; on each track one is within another, or beside it."""
    tracks = collections.defaultdict(list)
    for event in json.loads(convert(self.path, "perfetto")[0])["traceEvents"]:
      if event["ph"] == "X":
        begin, length = round(event["ts"] * 1000), round(event["dur"] * 1000)
        must(begin >= 0 and length >= 0, f"{event}")
        tracks[event["pid"], event["tid"]].append((begin, -length, event["name"]))
    for track, slices in tracks.items():
      within = []
      for begin, length, name in sorted(slices):
        while within and within[-1] <= begin:
          within.pop()
        must(not within or begin - length <= within[-1], f"{name} at {begin} of {track} overlaps")
        within.append(begin - length)
    return sum(map(len, tracks.values()))
