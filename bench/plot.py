"""The results as pictures, in SVG that a browser shows in its light or dark colours: the ratios
beside their goals, and the runs behind each of them."""

import html
import math
import os

import figures
import report

STYLE = """<style>
  :root { --paper: #fff; --ink: #1c2024; --faint: #d5dae0;
          --good: #2a7ab8; --bad: #c9622b; --other: #7a828c }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #16191d; --ink: #e6e9ec; --faint: #3a4148;
            --good: #62aee4; --bad: #f0925c; --other: #98a1ab }
  }
  text { font: 12px sans-serif; fill: var(--ink) }
  .small { font-size: 10px } .end { text-anchor: end } .middle { text-anchor: middle }
  .paper { fill: var(--paper) } .grid { stroke: var(--faint) }
  .goal { stroke: var(--ink); stroke-width: 2 } .span { stroke: var(--ink); opacity: .6 }
  .good { fill: var(--good) } .bad { fill: var(--bad) } .other { fill: var(--other) }
  .dot { opacity: .75 } .median { stroke: var(--ink); stroke-width: 1.5 }
</style>"""

COLOURS = {"yes": "good", "no": "bad", "?": "other", "-": "other"}
LABELS, WIDTH, RIGHT, STEP, TOP = 420, 480, 90, 22, 44


def text(x, y, string, kind=""):
  return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(string)}</text>'


def line(x1, y1, x2, y2, kind):
  return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def svg(height, parts):
  width = LABELS + WIDTH + RIGHT
  return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
          f'height="{height}">\n{STYLE}\n<rect width="100%" height="100%" class="paper"/>\n'
          + "\n".join(parts) + "\n</svg>\n")


def titled(rows):
  """=> (title, row, figure) of all that was measured."""
  for row in rows:
    if not row.get("skipped"):
      for figure in row["figures"]:
        yield figures.title(row, figure), row, figure


def ratios(found):
  """A bar from 1 to each ratio, on a logarithmic scale: to the left is faster than the other side."""
  shown = [(name, row, figure) for name, row, figure in titled(found["rows"])
           if figure["ratio"] is not None]
  numbers = [figure[key] for _, _, figure in shown for key in ("ratio", "goal")] + [0.5, 2]
  low, high = math.log(min(numbers) / 1.2), math.log(max(numbers) * 1.2)

  def at(ratio):
    place = (math.log(ratio) - low) / (high - low)
    return LABELS + WIDTH * min(max(place, 0), 1)

  height = TOP + STEP * len(shown) + 20
  parts = [text(10, 18, f"upager : the other side; less is better. {found['machine']['kernel']}, "
                        f"commit {found['commit']}. The thick mark is the goal.")]
  for tick in (.02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 50):
    if low < math.log(tick) < high:
      parts += [line(at(tick), TOP - 4, at(tick), height - 16, "grid"),
                text(at(tick), TOP - 8, f"{tick:g}", "small middle")]
  for number, (name, row, figure) in enumerate(shown):
    y, ratio = TOP + STEP * number, figure["ratio"]
    left, right = sorted((at(ratio), at(1)))
    parts += [
      text(LABELS - 8, y + 14, f"{name} : {row['against']}", "end"),
      f'<rect x="{left:.1f}" y="{y + 4}" width="{max(right - left, 1):.1f}" height="12" '
      f'class="{COLOURS[figure["holds"]]}"/>',
      line(at(figure["goal"]), y + 1, at(figure["goal"]), y + 19, "goal"),
      text(LABELS + WIDTH + 8, y + 14, f"{figures.ratio_text(figure)} {figure['holds']}", "small")]
    if figure["low"] is not None:
      parts.append(line(at(figure["low"]), y + 10, at(figure["high"]), y + 10, "span"))
  return svg(height, parts)


def dots(numbers, y, scale, kind):
  middle = sorted(numbers)[len(numbers) // 2]
  return [f'<circle cx="{LABELS + number * scale:.1f}" cy="{y}" r="3.5" class="dot {kind}"/>'
          for number in numbers] + [line(LABELS + middle * scale, y - 6, LABELS + middle * scale,
                                         y + 6, "median")]


def runs(found):
  """Each run a dot, from 0; a stroke at the median. Above ours, below the other side's."""
  shown = [entry for entry in titled(found["rows"]) if any(entry[2]["runs"].values())]
  step = 2 * STEP
  parts = [text(10, 18, "Each run a dot, from 0 on the left; the stroke is the median. "
                        "Above: upager. Below, grey: the other side.")]
  for number, (name, row, figure) in enumerate(shown):
    y = TOP + step * number
    largest = max(sum(figure["runs"].values(), []))
    scale = WIDTH / largest
    parts += [text(LABELS - 8, y + 14, name, "end"),
              line(LABELS, y + 32, LABELS + WIDTH, y + 32, "grid"),
              text(LABELS + WIDTH + 8, y + 18, figures.quantity(largest, figure["unit"]), "small")]
    for role, below, kind in (("ours", 10, "good"), ("theirs", 23, "other")):
      if figure["runs"][role]:
        parts += dots(figure["runs"][role], y + below, scale, kind)
  return svg(TOP + step * len(shown) + 10, parts)


def write(folder, found):
  for name, picture in (("ratios.svg", ratios), ("runs.svg", runs)):
    report.write(os.path.join(folder, name), picture(found))
