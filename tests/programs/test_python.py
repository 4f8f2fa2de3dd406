#!/usr/bin/env -S python3 -B
"""python3: a dictionary of 300 MB, multiprocessing with fork, subprocesses."""

import os

import common


def test(tap):
  programs = (("a dictionary of 300 MB", "prog_dict.py", 3),
              ("multiprocessing with fork", "prog_fork.py", 0),
              ("subprocesses", "prog_subprocess.py", 0))
  for label, program, status in programs:
    path = os.path.join(common.HERE, program)
    common.compare(tap, lambda _folder, path=path: [common.python(), path], label, status)


if __name__ == "__main__":
  common.main(test)
