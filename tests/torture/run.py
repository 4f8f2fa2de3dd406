#!/usr/bin/env python3
"""The torture client under `upager run`: run.py --memory SIZE [--config JSON] -- TORTURE-OPTIONS

Besides the client's own verdict: pages must have left, every message must have one outcome, and
nothing may stay behind. Environment: UPAGER_BUILD, UPAGER_TORTURE (the client's path).
"""

import argparse
import contextlib
import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "behaviour"))

import harness

SWAP = {"path": "swap", "size": "4G"}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--memory", required=True)
  parser.add_argument("--config", type=json.loads, default={})
  parser.add_argument("--evicts", action="store_true", help="it is wrong if no page leaves")
  parser.add_argument("--timeout", type=float, default=100000)
  parser.add_argument("options", nargs="*")
  arguments = parser.parse_args()
  torture = os.environ.get("UPAGER_TORTURE") or os.path.join(harness.BUILD, "tests", "torture",
                                                             "torture")
  config = {"swap": [SWAP], **arguments.config}
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was borrowed is given back
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(harness.Skip):  # without them it does without
      stack.enter_context(harness.Pool(2 * 8))
    return torture_under(torture, config, arguments)


def torture_under(torture, config, arguments):
  with harness.Run([torture, *arguments.options], memory=arguments.memory, config=config) as run:
    try:
      run.wait(arguments.timeout)
      run.right(0, "torture: ok")
      features = config.get("features", {})
      if not (features.get("move", True) and features.get("wp_unpopulated", True)):
        run.kept()
      elif arguments.evicts:
        run.evicted()
      run.balanced()
      run.leave_nothing()
    except harness.Failed as reason:
      print(reason)
      return 1
    print(run.output().strip())
    counters = run.counters()
    print(", ".join(f"{key} {value}" for key, value in counters.items() if value))
  return 0


if __name__ == "__main__":
  sys.exit(main())
