"""A dictionary of about 300 MB: built, read in order and at random, changed, thinned, read again.

prog_dict.py [SCALE]: so many times as large."""

import random
import sys
import zlib

COUNT = int(1_250_000 * (float(sys.argv[1]) if len(sys.argv) > 1 else 1))


def value(i, version):
  return f"{i * 2654435761 % 4294967296:010}-{version}-{'abcdefgh' * 12}{i % 97}"


def checksum(table, keys):
  crc = 0
  wrong = 0
  for key in keys:
    i, version = key, table[key][11]
    wrong += table[key] != value(i, version)
    crc = zlib.crc32(table[key].encode(), crc)
  return f"{crc:08x} wrong={wrong}"


def main():
  rng = random.Random(1)
  table = {i: value(i, 0) for i in range(COUNT)}
  print("built", len(table), sum(map(len, table.values())))
  print("in order", checksum(table, range(0, COUNT, 7)))
  picks = [rng.randrange(COUNT) for _ in range(8_000)]
  print("at random", checksum(table, picks))
  for i in picks:
    table[i] = value(i, 1)
  print("changed", checksum(table, picks))
  for i in range(0, COUNT, 5):
    del table[i]
  print("thinned", len(table), checksum(table, list(table)[::11]))
  sample = range(1, COUNT, 250)
  print("sorted", sorted((i for i in sample if i in table), key=lambda i: table[i])[:5])
  return 3  # a status of its own, to be passed on


if __name__ == "__main__":
  sys.exit(main())
