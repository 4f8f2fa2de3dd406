#!/usr/bin/env -S python3 -B
"""node: typed arrays, objects and Maps, with the garbage collector at work."""

import os

import common


def prepare(_folder):
  common.need("node:nodejs")
  return ["node", "--max-old-space-size=2048", os.path.join(common.HERE, "prog_node.js")]


if __name__ == "__main__":
  common.main(lambda tap: common.compare(tap, prepare))
