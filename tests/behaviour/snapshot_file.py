"""A snapshot's file, mapped and read again: see src/proto/snapshot.h."""

import mmap
import os
import struct

MAGIC = 0x31746F6873706E73
PAGE = 4096
HEADER, RUN, LOST = struct.Struct("<QIiQQQQQq"), struct.Struct("<QQQ"), struct.Struct("<QQ")
ZEROS = bytes(PAGE)


class Snapshot:
  def __init__(self, path):
    with open(path, "rb") as file:
      self.size = os.fstat(file.fileno()).st_size
      self.map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    (self.magic, self.version, self.pid, n_runs, self.n_pages, self.data, n_lost, lost,
     self.time) = HEADER.unpack_from(self.map, 0)
    assert self.magic == MAGIC and self.version == 1
    self.offsets = {}
    for i in range(n_runs):
      address, length, offset = RUN.unpack_from(self.map, HEADER.size + i * RUN.size)
      assert offset % PAGE == 0 and offset >= self.data and length, (address, length, offset)
      for k in range(0, length, PAGE):
        assert address + k not in self.offsets, f"{address + k:#x} is there twice"
        self.offsets[address + k] = offset + k
    assert len(self.offsets) == self.n_pages == len(set(self.offsets.values()))
    self.lost = set()
    for i in range(n_lost):
      offset, length = LOST.unpack_from(self.map, lost + i * LOST.size)
      self.lost.update(range(offset, offset + length, PAGE))
    for offset in self.lost:
      assert self.map[offset:offset + PAGE] in (ZEROS, b""), f"lost, but no zeros: {offset:#x}"

  def has(self, address):
    return address in self.offsets

  def is_lost(self, address):
    return self.offsets.get(address) in self.lost

  def page(self, address):
    """What is in no run reads as zeros."""
    offset = self.offsets.get(address)
    return ZEROS if offset is None else self.map[offset:offset + PAGE]

  def pages(self):
    """Every page with content, wherever it is."""
    for offset in self.offsets.values():
      if offset not in self.lost:
        yield self.map[offset:offset + PAGE]
