"""What is made of the measured numbers: medians, ratios with an interval, whether a goal holds, a
table, a progress line."""

import math
import statistics
import sys
import time

# Two-sided 95 % points of Student's t, by degrees of freedom; beyond that the normal one is near.
T95 = [0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
       2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
       2.052, 2.048, 2.045, 2.042]


def ratio_interval(ours, theirs):
  """=> (ratio, low, high): the geometric mean of the pairs' ratios and its 95 % interval.

  low and high are None for fewer than three pairs, which say nothing about it."""
  logs = [math.log(a / b) for a, b in zip(ours, theirs)]
  mean = statistics.fmean(logs)
  if len(logs) < 3:
    return math.exp(mean), None, None
  freedom = len(logs) - 1
  t = T95[freedom] if freedom < len(T95) else 1.98
  half = t * statistics.stdev(logs) / math.sqrt(len(logs))
  return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def values(runs, key):
  return [run[key] for run in runs if run.get(key)]


def evaluate(figure, runs):
  """One figure of a row from its runs (side → results). => what the table, the plots and the JSON
  show of it."""
  ours, theirs = (values(runs.get(side, ()), figure.key) for side in ("ours", "theirs"))
  found = {"label": figure.label, "unit": figure.unit, "goal": figure.goal,
           "interval": figure.interval, "alone": figure.alone, "ours": None, "theirs": None, "ratio": None, "low": None,
           "high": None, "disk": None, "runs": {"ours": ours, "theirs": theirs}}
  if ours:
    found["ours"] = statistics.median(ours)
  if theirs:
    found["theirs"] = statistics.median(theirs)
  if ours and theirs:
    mean, found["low"], found["high"] = ratio_interval(ours, theirs)
    found["ratio"] = mean if figure.interval else found["ours"] / found["theirs"]
  if figure.floor and runs.get("disk") and ours:
    took = values(runs["ours"], "measured_ns")
    allowed = values(runs["disk"], "ns")
    found["disk"] = statistics.median(a / b for a, b in zip(took, allowed))
    found["floor"] = figure.floor
  found["holds"] = judge(found)
  return found


def judge(figure):
  """Whether the goal holds: "yes", "no", "?" where the noise is too large to tell, or "-" where a
  side is missing. What has nothing beside it is judged by its value.

  A goal on an interval holds when the whole interval is within it."""
  number = figure["ours"] if figure["alone"] else figure["ratio"]
  if number is None:
    return "-"
  if figure["interval"]:
    if figure["low"] is None:
      return "?"
    if figure["high"] <= figure["goal"]:
      return "yes"
    return "?" if figure["low"] <= figure["goal"] else "no"
  if figure["disk"] is not None and figure["disk"] <= figure["floor"]:
    return "yes"
  return "yes" if number <= figure["goal"] else "no"


def quantity(value, unit):
  if value is None:
    return "-"
  if unit == "bytes":
    return f"{value:.1f} B" if value < 4096 else f"{value / (1 << 20):.1f} MiB"
  for limit, name in ((1e3, "ns"), (1e6, "µs"), (1e9, "ms")):
    if abs(value) < limit:
      return f"{value * 1e3 / limit:.3g} {name}"
  return f"{value / 1e9:.3g} s"


def ratio_text(figure):
  if figure["ratio"] is None:
    return "-"
  digits = 3 if figure["interval"] else 2
  return f"{figure['ratio']:.{digits}f}"


def interval_text(figure):
  if figure["low"] is None:
    return "-"
  digits = 3 if figure["interval"] else 2
  return f"{figure['low']:.{digits}f}–{figure['high']:.{digits}f}"


def goal_text(figure):
  if figure["alone"]:
    return f"≤ {quantity(figure['goal'], figure['unit'])}"
  text = f"≤ {figure['goal']:g}"
  return f"{text}, or disk × {figure['floor']:g}" if figure.get("floor") else text


def verdict_text(row, figure):
  if figure["holds"] == "-" and row["failures"]:
    return " and ".join(sorted(row["failures"])) + " failed"
  if figure["disk"] is None:
    return figure["holds"]
  return f"{figure['holds']} (disk × {figure['disk']:.2f})"


def title(row, figure):
  text = f"{row['name']}, {figure['label']}" if figure["label"] else row["name"]
  return f"{text}, {row['size'] >> 20} MiB" if row["several_sizes"] else text


def lines_of(rows):
  """=> the cells of the table, a line for each figure; what was left out has its reason."""
  for row in rows:
    if row.get("skipped"):
      yield (row["name"], row["against"] or "-", *["-"] * 6, row["skipped"])
      continue
    for figure in row["figures"]:
      alone = figure["alone"]
      yield (title(row, figure), "-" if alone else row["against"], str(len(figure["runs"]["ours"])),
             quantity(figure["ours"], figure["unit"]),
             "-" if alone else quantity(figure["theirs"], figure["unit"]),
             "-" if alone else ratio_text(figure), "-" if alone else interval_text(figure),
             goal_text(figure), verdict_text(row, figure))


def format_table(rows):
  """Rows of a run as text, columns aligned."""
  cells = [("work", "against", "runs", "ours", "theirs", "ratio", "95 %", "goal", "holds")]
  cells += lines_of(rows)
  last = len(cells[0]) - 1
  widths = [max(len(line[i]) for line in cells) for i in range(last)] + [5]
  lines = []
  for line in cells:
    texts = [cell.ljust(width) if i in (0, 1, last) else cell.rjust(width)
             for i, (cell, width) in enumerate(zip(line, widths))]
    lines.append("  ".join(texts).rstrip())
  lines.insert(1, "  ".join("-" * width for width in widths))
  return "\n".join(lines)


class Progress:
  """One line that is written over, on a terminal; nothing elsewhere."""

  def __init__(self, stream=sys.stderr):
    self.stream = stream
    self.on = stream.isatty()
    self.started = time.monotonic()

  def show(self, text):
    if self.on:
      elapsed = time.monotonic() - self.started
      self.stream.write(f"\r\033[K{int(elapsed // 60)}:{int(elapsed % 60):02} {text}")
      self.stream.flush()

  def clear(self):
    if self.on:
      self.stream.write("\r\033[K")
      self.stream.flush()
