#!/usr/bin/env -S python3 -B
"""redis-server: load, BGSAVE while writing, eviction of what the fork had shared, DEBUG RELOAD.

Every value can be computed from its key and version, so each is checked when it is read. The
snapshot that the forked child wrote is loaded into a bare server at the end: it must hold the
values of the moment of the fork, though the parent wrote and pages were evicted meanwhile.
"""

import hashlib
import os
import random
import shutil
import time

import common
from redis_client import RedisError, connect

KEYS = 36_000
LATE_KEYS = 12_000
VALUE_BYTES = 4000  # about a page a value
CHANGED = 9_000
TIMEOUT = 120
SAVE_DELAY = "-3"  # a nap every third key: the save lasts while the parent writes


def value(key, version):
  return hashlib.shake_128(b"%d.%d" % (key, version)).digest(VALUE_BYTES)


def wrong_keys(client, versions, keys):
  """Reads keys and counts those without the value of their version."""
  keys = list(keys)
  replies = client.pipeline(("GET", f"key:{key}") for key in keys)
  return sum(reply != value(key, versions[key]) for key, reply in zip(keys, replies))


def write(client, versions, keys, version):
  for key in keys:
    versions[key] = version
  commands = (("SET", f"key:{key}", value(key, version)) for key in keys)
  return sum(reply != b"OK" for reply in client.pipeline(commands))


def wait_for_save(client):
  deadline = time.monotonic() + TIMEOUT
  while (info := client.info("persistence"))["rdb_bgsave_in_progress"] != "0":
    if time.monotonic() > deadline:
      return "no end"
    time.sleep(0.05)
  return info["rdb_last_bgsave_status"]


def evicted_so_far(run):
  return (common.find_counters(run.live()) or {}).get("evicted", 0) if run.paged else 0


def work(client, run, dump, snapshot):
  """=> what is to be the same with and without upager, and what is to be noted."""
  rng = random.Random(11)
  versions = {}
  result = []
  notes = []

  result.append(("refused while loading", write(client, versions, range(KEYS), 0)))
  result.append(("keys loaded", client.call("DBSIZE")))

  client.call("BGSAVE")
  changed = rng.sample(range(KEYS), CHANGED)
  result.append(("refused while saving", write(client, versions, changed, 1)))
  result.append(("wrong while saving", wrong_keys(client, versions, changed[::3])))
  notes.append(f"save still under way after the writes: "
               f"{client.info('persistence')['rdb_bgsave_in_progress']}")
  result.append(("save", wait_for_save(client)))
  shutil.copy(dump, snapshot)

  # The child is gone. What it had shared is to leave now, for newer keys.
  before = evicted_so_far(run)
  late = range(KEYS, KEYS + LATE_KEYS)
  result.append(("refused after the fork", write(client, versions, late, 0)))
  picks = rng.sample(range(KEYS + LATE_KEYS), 6_000)
  result.append(("wrong after the fork", wrong_keys(client, versions, picks)))
  after = evicted_so_far(run)

  client.call("CONFIG", "SET", "rdb-key-save-delay", "0")
  result.append(("reload", client.call("DEBUG", "RELOAD")))
  result.append(("keys at the end", client.call("DBSIZE")))
  result.append(("wrong at the end", wrong_keys(client, versions, versions)))
  return result, notes, after - before


def serve(folder, memory=None):
  """Runs the server through the work. => (run, result, notes, evicted after the fork, snapshot)"""
  home = os.path.join(folder, "paged" if memory else "bare")
  os.mkdir(home)
  snapshot = os.path.join(folder, f"{os.path.basename(home)}.rdb")
  socket = os.path.join(home, "sock")
  command = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", home, "--rdbcompression", "no",
             "--enable-debug-command", "yes", "--rdb-key-save-delay", SAVE_DELAY, "--daemonize", "no"]
  with common.Run(command, folder, memory=memory) as run:
    result, notes, evicted = [], [], 0
    try:
      with connect(socket, lambda: run.process.poll() is None) as client:
        result, notes, evicted = work(client, run, os.path.join(home, "dump.rdb"), snapshot)
        try:
          client.call("SHUTDOWN", "NOSAVE")
        except RedisError:
          pass  # it closes the connection instead of a reply
    except (RedisError, OSError) as error:
      result.append(("failed", str(error)))
      run.kill()
    run.wait(30)
  return run, result, notes, evicted, snapshot


def snapshot_wrong(folder, snapshot):
  """Loads a snapshot into a bare server. => the number of keys that are not as at the fork."""
  home = os.path.join(folder, "snapshot")
  os.mkdir(home)
  shutil.move(snapshot, os.path.join(home, "dump.rdb"))
  socket = os.path.join(home, "sock")
  command = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", home]
  with common.Run(command, folder) as run:
    with connect(socket, lambda: run.process.poll() is None) as client:
      versions = dict.fromkeys(range(KEYS), 0)
      return wrong_keys(client, versions, range(KEYS)) + abs(client.call("DBSIZE") - KEYS)


def test(tap):
  common.need("redis-server")
  with common.work_folder() as folder:
    bare, expected, _, _, _ = serve(folder)
    right = [count for name, count in expected if name.startswith(("wrong", "refused"))]
    if not tap.ok(bare.status == 0 and len(expected) == 10 and not any(right),
                  "serves the work without upager", f"{expected}\n{bare.complaints()}"):
      return
    paged, result, notes, evicted, snapshot = serve(folder, common.half_of(bare.peak))
    tap.ok(paged.status == 0, "ends with the same status under upager",
           f"status {paged.status}\n{paged.complaints()}")
    tap.ok(result == expected, "answers the same", f"{result}\ninstead of {expected}\n"
           f"{common.read_text(paged.stdout)[-2000:]}")
    if os.path.exists(snapshot):
      wrong = snapshot_wrong(folder, snapshot)
      tap.ok(wrong == 0, "the forked child saved the moment of the fork", f"{wrong} keys are wrong")
    else:
      tap.ok(False, "the forked child saved the moment of the fork", "it saved nothing")
    if paged.paged:
      tap.ok(evicted > 0, "pages that a fork had shared leave after it",
             "the count of evicted pages stood still after the child had ended")
    else:
      tap.skip("pages that a fork had shared leave after it", "UPAGER_NATIVE is set")
    tap.note("; ".join(notes))
    common.report(tap, bare, paged)


if __name__ == "__main__":
  common.main(test)
