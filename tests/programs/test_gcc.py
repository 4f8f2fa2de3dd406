#!/usr/bin/env -S python3 -B
"""gcc -O1 on a large generated file: the driver starts cc1, and the assembly must be the same."""

import os
import random

import common

FUNCTIONS = 400
ELEMENTS = 250_000


def function(rng, number):
  lines = [f"int f{number}(int *a, int n)", "{", "\tint s = n;"]
  for _ in range(10):
    x, y, k = rng.randrange(64), rng.randrange(64), rng.randrange(1, 1 << 20)
    lines.append(rng.choice((
      f"\ts += a[{x}] * {k} + (s >> {x % 13});",
      f"\tif ((s & {k}) > a[{x}]) s ^= a[{y}] + {k}; else a[{x}] = s - {y};",
      f"\tif (n > {x}) a[{y}] ^= s / {k};",
    )))
  if number:
    lines.append(f"\tif (n > 3) s += f{rng.randrange(max(0, number - 20), number)}(a, n - 1);")
  return "\n".join([*lines, "\treturn s;", "}", ""])


def prepare(folder, scale=1):
  common.need("gcc")
  path = os.path.join(folder, "large.c")
  rng = random.Random(3)
  functions = int(FUNCTIONS * scale)
  with open(path, "w") as file:
    for number in range(functions):
      file.write(function(rng, number))
    file.write("static const struct { int key; double weight; const char *name; } table[] = {\n")
    for i in range(int(ELEMENTS * scale)):
      file.write(f'\t{{{rng.randrange(1 << 30)}, {i}.5 * 3, "n{rng.randrange(1000)}" }},\n')
    file.write("};\nconst void *get(int i)\n{\n\treturn &table[i];\n}\n")
    calls = "\n".join(f"\ts += f{i}(a, n);" for i in range(functions))
    file.write(f"int all(int *a, int n)\n{{\n\tint s = 0;\n{calls}\n\treturn s;\n}}\n")
  return ["gcc", "-O1", "-frandom-seed=1", "-S", "-o", "-", path]


if __name__ == "__main__":
  common.main(lambda tap: common.compare(tap, prepare))
