"""What is made of the measured numbers: medians, ratios with an interval, a table, a progress line."""

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

  low and high are None for fewer than two pairs."""
  logs = [math.log(a / b) for a, b in zip(ours, theirs)]
  mean = statistics.fmean(logs)
  if len(logs) < 2:
    return math.exp(mean), None, None
  freedom = len(logs) - 1
  t = T95[freedom] if freedom < len(T95) else 1.98
  half = t * statistics.stdev(logs) / math.sqrt(len(logs))
  return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def judge(row):
  """Whether the goal holds: "yes", "no", "?" where the noise is too large to tell, or "-" where there
  is no goal or a side is missing.

  A goal on an interval holds when the whole interval is within it."""
  if row.get("goal") is None or row.get("ratio") is None:
    return "-"
  if row.get("interval") and row["low"] is not None:
    if row["high"] <= row["goal"]:
      return "yes"
    return "?" if row["low"] <= row["goal"] else "no"
  return "yes" if row["ratio"] <= row["goal"] else "no"


def nanoseconds(value):
  if value is None:
    return "-"
  if value < 1000:
    return f"{value:.0f} ns"
  return f"{value / 1000:.{2 if value < 10000 else 1}f} µs"


def ratio_text(row):
  if row.get("ratio") is None:
    return "-"
  text = f"{row['ratio']:.3f}" if row.get("interval") else f"{row['ratio']:.2f}"
  if row.get("low") is not None:
    text += f" ({row['low']:.3f} to {row['high']:.3f})" if row.get("interval") else ""
  return text


def format_table(rows):
  """Rows of a run as text, columns aligned."""
  cells = [("work", "against", "pairs", "ours", "theirs", "ratio", "goal", "holds")]
  for row in rows:
    goal = row.get("goal")
    cells.append((
      row["work"], row["against"], str(row["pairs"]), nanoseconds(row.get("ours")),
      nanoseconds(row.get("theirs")), ratio_text(row), "-" if goal is None else f"≤ {goal:g}",
      judge(row),
    ))
  widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
  lines = []
  for line in cells:
    texts = [cell.ljust(width) if i < 2 else cell.rjust(width)
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
