#!/usr/bin/env -S python3 -B
"""stress-ng --vm with --verify: it writes patterns, reads them back and fails on a wrong bit."""

import common


def prepare(_folder):
  common.need("stress-ng")
  # What it prints has process ids and times in it; its verdict is the exit status.
  command = ("exec stress-ng --vm 2 --vm-bytes 192M --vm-method all --vm-ops 60000 --verify "
             "--no-rand-seed --oomable --timeout 120 >/dev/null")
  return ["sh", "-c", command]


if __name__ == "__main__":
  common.main(lambda tap: common.compare(tap, prepare))
