#!/usr/bin/env -S python3 -B
"""sort with a buffer of 200 MB over a generated file that fills it."""

import os
import random

import common

LINES = 800_000


def prepare(folder, scale=1):
  common.need("sort:coreutils")
  path = os.path.join(folder, "lines")
  rng = random.Random(7)
  with open(path, "wb") as file:
    for _ in range(int(LINES * scale) // 1000):
      data = rng.randbytes(24 * 1000).hex()
      file.write("".join(f"{data[i:i + 48]} {i % 97}\n" for i in range(0, 48000, 48)).encode())
  return ["sort", "-S", f"{int(200 * scale)}M", "--parallel=2", path]


if __name__ == "__main__":
  common.main(lambda tap: common.compare(tap, prepare))
