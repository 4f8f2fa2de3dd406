"""multiprocessing with fork: children read and change what they inherited, and send results back."""

import hashlib
import multiprocessing
import sys

BLOCK = 64 * 1024
BLOCKS = 800

blocks = []


def block(i, version):
  return hashlib.shake_128(b"%d.%d" % (i, version)).digest(BLOCK)


def work(part):
  """Reads a part of what was inherited, changes it (for this child alone), reads it again."""
  sha = hashlib.sha256()
  wrong = 0
  mine = range(part, BLOCKS, 40)
  for i in mine:
    wrong += blocks[i] != block(i, 0)
    sha.update(blocks[i])
  for i in mine:
    blocks[i][:] = block(i, part + 1)
  for i in mine:
    wrong += blocks[i] != block(i, part + 1)
    sha.update(blocks[i])
  for i in mine:
    blocks[i][:] = block(i, 0)
  return part, sha.hexdigest(), wrong


def total():
  sha = hashlib.sha256()
  for data in blocks:
    sha.update(data)
  return sha.hexdigest()


def main():
  context = multiprocessing.get_context("fork")
  blocks.extend(bytearray(block(i, 0)) for i in range(BLOCKS))
  print("before", total())
  with context.Pool(4) as pool:
    for part, digest, wrong in pool.map(work, range(40), chunksize=2):
      print(part, digest, wrong)
  print("after", total())
  queue = context.Queue()
  child = context.Process(target=lambda: queue.put([bytes(blocks[i]) for i in range(0, 400, 9)]))
  child.start()
  for i, data in zip(range(0, 400, 9), queue.get()):
    print(i, data == block(i, 0))
  child.join()
  print("joined", child.exitcode)
  # The children are gone: what was shared with them may leave now.
  for i in range(BLOCKS):
    blocks[i][:100] = block(i, 1)[:100]
  print("changed", total())
  sys.stdout.flush()


if __name__ == "__main__":
  main()
