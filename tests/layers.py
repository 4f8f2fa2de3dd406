#!/usr/bin/env python3
"""The house, floor by floor: a file includes its own folder and lower floors only, headers include
each other in no circle, only src/sys makes ioctls and nothing in src/ prints. Prints TAP."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Folder: its floor, and folders of the same floor that it may look into.
FLOORS = {
  "include/upager": (0, ()),
  "src/base": (0, ()),
  "src/sys": (1, ()),
  "src/proto": (1, ()),
  "src/mm": (2, ()),
  "src/tier": (2, ("src/mm",)),
  "src/policy": (3, ()),
  "src/pager": (4, ()),
  "daemon": (5, ()),
  "client": (5, ()),
}
INCLUDE_DIRS = ("src", "include")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
PRINTS = re.compile(r"\b(v?f?printf|puts|fputs|perror|v?syslog|sd_journal_\w+)\s*\(")
IOCTLS = re.compile(r"\bioctl\s*\(|\bSYS_ioctl\b")


def read(path):
  with open(os.path.join(ROOT, path), errors="replace") as file:
    return file.read()


def without_comments(text):
  blank = lambda match: re.sub(r"[^\n]", " ", match[0])
  text = re.sub(r"/\*.*?\*/", blank, text, flags=re.S)
  return re.sub(r"//[^\n]*", blank, text)


def without_strings(text):
  return re.sub(r'"(\\.|[^"\\\n])*"', '""', text)


def sources(folder):
  found = []
  for path, _, names in os.walk(os.path.join(ROOT, folder)):
    for name in sorted(names):
      if name.endswith((".c", ".h")):
        found.append(os.path.relpath(os.path.join(path, name), ROOT))
  return sorted(found)


def folder_of(path):
  return next((folder for folder in FLOORS if path.startswith(folder + "/")), None)


def resolve(path, name):
  """=> the file of this project that the include names, or None for the system's."""
  for folder in (os.path.dirname(path), *INCLUDE_DIRS):
    full = os.path.normpath(os.path.join(folder, name))
    if os.path.isfile(os.path.join(ROOT, full)):
      return full
  return None


def includes(path):
  """=> (line number, file of this project) of each include."""
  for number, line in enumerate(without_comments(read(path)).splitlines(), 1):
    if (match := INCLUDE.match(line)) and (target := resolve(path, match[2])):
      yield number, target


def allowed(folder, other):
  floor, neighbours = FLOORS[folder]
  return other is not None and (other == folder or FLOORS[other][0] < floor
                                or other in neighbours)


def check_floor(folder):
  for path in sources(folder):
    for number, target in includes(path):
      other = folder_of(target)
      if not allowed(folder, other):
        where = f"floor {FLOORS[other][0]}" if other else "no floor of the house"
        yield f"{path}:{number}: {folder} is floor {FLOORS[folder][0]}, {target} is on {where}"


def check_circles():
  graph = {path: [target for _, target in includes(path)]
           for folder in FLOORS for path in sources(folder) if path.endswith(".h")}
  done, way = set(), []

  def walk(path):
    if path in way:
      yield " -> ".join([*way[way.index(path):], path])
      return
    if path in done:
      return
    way.append(path)
    for target in graph.get(path, ()):
      yield from walk(target)
    way.pop()
    done.add(path)

  for path in graph:
    yield from walk(path)


def check_text(pattern, folders, what):
  for folder in folders:
    for path in sources(folder):
      text = without_strings(without_comments(read(path)))
      for number, line in enumerate(text.splitlines(), 1):
        if pattern.search(line):
          yield f"{path}:{number}: {what}: {line.strip()}"


def main():
  below_daemon = [folder for folder in FLOORS if folder.startswith("src/")]
  checks = [(f"{folder} includes itself and lower floors only", check_floor(folder))
            for folder in FLOORS if sources(folder)]
  checks += [
    ("headers include each other in no circle", check_circles()),
    ("only src/sys makes ioctls", check_text(
      IOCTLS, [folder for folder in below_daemon if folder != "src/sys"] + ["daemon"],
      "an ioctl outside src/sys")),
    ("nothing in src/ prints or logs", check_text(PRINTS, below_daemon, "output")),
  ]
  failed = 0
  print(f"1..{len(checks)}")
  for number, (name, findings) in enumerate(checks, 1):
    findings = list(findings)
    failed += bool(findings)
    print(f"{'not ok' if findings else 'ok'} {number} - {name}")
    for finding in findings:
      print(f"# {finding}")
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
