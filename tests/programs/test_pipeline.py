#!/usr/bin/env -S python3 -B
"""A shell pipeline of forks: sh, awk, sort, xz and gzip under one limit."""

import os

import common


def prepare(_folder):
  common.need("awk:mawk", "sort:coreutils", "xz:xz-utils", "gzip")
  return ["sh", os.path.join(common.HERE, "prog_pipeline.sh")]


if __name__ == "__main__":
  common.main(lambda tap: common.compare(tap, prepare))
