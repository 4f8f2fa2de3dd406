#!/usr/bin/env -S python3 -B
"""A C program on glibc's malloc with 16 threads (malloc16.c): arenas, mmap and brk at once."""

import common


def prepare(_folder):
  return [common.need_built("tests/programs/malloc16")]


if __name__ == "__main__":
  common.main(lambda tap: common.compare(tap, prepare))
