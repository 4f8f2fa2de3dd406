"""The kernel's side of a comparison: a memory cgroup (v1 or v2) and a swap area, made and removed.

Nothing that others made is touched: the cgroup, the swap file and the label of the zram device carry
this process's id, the area is given the highest priority so that it is the one used, and what an
earlier run that was killed left behind is swept by the same names. No page cache is dropped but that
of the swap file itself.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time

PREFIX = "upager-bench-"
MIB = 1 << 20
TOP_PRIORITY = 32767  # of swapon: above every swap area that sets none


class Unavailable(Exception):
  """Why the kernel's side cannot run here; said to the person, then that side is skipped."""


def find_hierarchy(mounts="/proc/self/mounts"):
  """=> (version, mount point) of the memory controller, v1 before v2; Unavailable if there is none."""
  v2 = None
  with open(mounts) as file:
    for line in file:
      _, where, kind, options = line.split()[:4]
      if kind == "cgroup" and "memory" in options.split(","):
        return 1, where
      if kind == "cgroup2":
        with contextlib.suppress(OSError), open(f"{where}/cgroup.controllers") as controllers:
          if "memory" in controllers.read().split():
            v2 = where
  if v2:
    return 2, v2
  raise Unavailable("no memory cgroup is mounted (v1 or v2 with the memory controller)")


def write_value(path, value):
  with open(path, "w") as file:
    file.write(str(value))


def read_text(path, default=""):
  try:
    with open(path) as file:
      return file.read()
  except OSError:
    return default


def process_lives(pid):
  return os.path.exists(f"/proc/{pid}")


def own_pid(name):
  match = re.search(PREFIX + r"(\d+)", name)
  return int(match.group(1)) if match else None


class MemoryCgroup:
  """A memory cgroup of our own. => made by make(), removed by remove(), which may be called twice."""

  def __init__(self):
    self.version, self.mount = find_hierarchy()
    self.path = os.path.join(self.mount, f"{PREFIX}{os.getpid()}")
    self.made = False

  def make(self):
    self.sweep()
    try:
      if self.version == 2:
        control = os.path.join(self.mount, "cgroup.subtree_control")
        if os.path.exists(control) and "memory" not in read_text(control).split():
          write_value(control, "+memory")
      os.mkdir(self.path)
    except OSError as error:
      raise Unavailable(f"cannot make a memory cgroup: {error}") from error
    self.made = True
    if self.version == 2 and not os.path.exists(f"{self.path}/memory.swap.max"):
      raise Unavailable("this kernel's memory cgroups do not account swap (CONFIG_SWAP)")

  def sweep(self):
    for name in os.listdir(self.mount):
      pid = own_pid(name) if name.startswith(PREFIX) else None
      if pid and not process_lives(pid):
        with contextlib.suppress(OSError):
          os.rmdir(os.path.join(self.mount, name))

  def set_limit(self, limit, swap):
    """Memory at most limit, swap as much as it takes. => no process may be inside."""
    try:
      if self.version == 2:
        write_value(f"{self.path}/memory.max", limit)
        write_value(f"{self.path}/memory.swap.max", "max")
        with contextlib.suppress(OSError):
          write_value(f"{self.path}/memory.zswap.max", 0)
        return
      # v1 refuses a memory limit above memory + swap, so that one is lifted first.
      memsw = f"{self.path}/memory.memsw.limit_in_bytes"
      if os.path.exists(memsw):
        write_value(memsw, -1)
      write_value(f"{self.path}/memory.limit_in_bytes", limit)
      stat = dict(line.split() for line in read_text(f"{self.path}/memory.stat").splitlines())
      above = int(stat.get("hierarchical_memsw_limit", 1 << 62))
      if above < limit + swap:
        raise Unavailable(f"a cgroup above ours allows memory and swap of {above // MIB} MiB only")
    except OSError as error:
      raise Unavailable(f"cannot limit memory: {error}") from error

  def enter(self):
    """Called in the child between fork and exec."""
    write_value(f"{self.path}/cgroup.procs", os.getpid())

  def swappiness(self):
    text = read_text(f"{self.path}/memory.swappiness") or read_text("/proc/sys/vm/swappiness", "0")
    return int(text)

  def end_members(self):
    """A program that a signal of ours overtook while it was being started is nobody's to end but ours."""
    for pid in map(int, read_text(f"{self.path}/cgroup.procs").split()):
      if pid != os.getpid():
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGKILL)

  def remove(self):
    for _ in range(100):
      if not self.made:
        return
      try:
        os.rmdir(self.path)
        self.made = False
      except FileNotFoundError:
        self.made = False
      except OSError:
        self.end_members()
        time.sleep(0.05)  # a process that has just ended is still counted
    raise OSError(f"{self.path} could not be removed: a process is left in it")


def swap_areas():
  return [line.split()[0] for line in read_text("/proc/swaps").splitlines()[1:]]


def find_tool(name):
  return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def call(tool, *args):
  path = find_tool(tool)
  if not path:
    raise Unavailable(f"{tool} is not installed (Debian's packages: mount, util-linux)")
  done = subprocess.run([path, *args], capture_output=True, text=True)
  if done.returncode:
    raise Unavailable(f"{tool} failed: {done.stderr.strip()}")


def write_file(path, size):
  """Written, not only allocated: the first use of a block must not be dearer than the next."""
  free = shutil.disk_usage(os.path.dirname(path)).free
  if free < size + 64 * MIB:
    raise Unavailable(f"{os.path.dirname(path)} has only {free // MIB} MiB left for a swap file")
  block = os.urandom(MIB)
  with open(path, "wb") as file:
    os.chmod(path, 0o600)
    for _ in range(-(-size // MIB)):
      file.write(block)
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class SwapFile:
  """A swap file of our own. => made by make(), removed by remove(), which may be called twice."""

  def __init__(self, folder, size):
    self.folder = folder
    self.size = size
    self.path = os.path.join(folder, f"{PREFIX}{os.getpid()}.swap")

  def make(self):
    self.sweep()
    write_file(self.path, self.size)
    call("mkswap", self.path)
    call("swapon", "-p", str(TOP_PRIORITY), self.path)

  def sweep(self):
    for path in set(swap_areas()) | {entry.path for entry in os.scandir(self.folder)}:
      name = os.path.basename(path)
      pid = own_pid(name) if re.fullmatch(PREFIX + r"\d+\.swap", name) else None
      if pid and not process_lives(pid):
        if path in swap_areas():
          subprocess.run([find_tool("swapoff"), path], check=False)
        with contextlib.suppress(OSError):
          os.unlink(path)

  def remove(self):
    if self.path in swap_areas():
      call("swapoff", self.path)
    with contextlib.suppress(FileNotFoundError):
      os.unlink(self.path)


class Zram:
  """A zram device of our own, as SwapFile. What it holds is neither the cgroup's nor limited."""

  CONTROL = "/sys/class/zram-control"
  LABEL = "upager-"  # of the swap area, and our pid: 16 bytes at most
  LABEL_AT = 0x41c   # in a swap area's header (include/linux/swap.h)

  def __init__(self, _folder, size, algorithm="lz4"):
    self.size = size
    self.algorithm = algorithm
    self.number = None

  def make(self):
    if not os.path.isdir(self.CONTROL):
      subprocess.run(["modprobe", "zram"], stderr=subprocess.DEVNULL, check=False)
    self.sweep()
    try:
      self.number = int(read_text(f"{self.CONTROL}/hot_add") or "no zram in this kernel")
      write_value(self.attribute("comp_algorithm"), self.algorithm)
      write_value(self.attribute("disksize"), self.size)
    except (OSError, ValueError) as error:
      raise Unavailable(f"cannot make a zram device with {self.algorithm}: {error}") from error
    call("mkswap", "-L", f"{self.LABEL}{os.getpid()}", f"/dev/zram{self.number}")
    call("swapon", "-p", str(TOP_PRIORITY), f"/dev/zram{self.number}")

  def attribute(self, name):
    return f"/sys/block/zram{self.number}/{name}"

  def sweep(self):
    for name in os.listdir("/sys/block"):
      if match := re.fullmatch(r"zram(\d+)", name):
        pid = self.maker(f"/dev/{name}")
        if pid and not process_lives(pid):
          left = Zram(None, 0)
          left.number = int(match.group(1))
          with contextlib.suppress(Unavailable, OSError):
            left.remove()

  def maker(self, device):
    """=> the process whose device it is, by the label; None if it is nobody's of ours."""
    with contextlib.suppress(OSError), open(device, "rb") as file:
      file.seek(self.LABEL_AT)
      match = re.fullmatch(self.LABEL + r"(\d+)", file.read(16).rstrip(b"\0").decode("latin-1"))
      return int(match.group(1)) if match else None
    return None

  def remove(self):
    if self.number is None:
      return
    if f"/dev/zram{self.number}" in swap_areas():
      call("swapoff", f"/dev/zram{self.number}")
    for path in (self.attribute("reset"), f"{self.CONTROL}/hot_remove"):
      for patience in range(50, -1, -1):  # udev may still look at it
        try:
          write_value(path, 1 if path.endswith("reset") else self.number)
          break
        except OSError:
          if not patience:
            raise
          time.sleep(0.1)
    self.number = None


def sweep(folder):
  """Removes what runs that were killed have left: as root, and of ours alone."""
  if os.geteuid() != 0:
    return
  with contextlib.suppress(Unavailable, OSError):
    SwapFile(folder, 0).sweep()
  with contextlib.suppress(Unavailable, OSError):
    Zram(folder, 0).sweep()
  with contextlib.suppress(Unavailable, OSError):
    MemoryCgroup().sweep()


class KernelSwap:
  """A cgroup and an area, for a with statement: removed on failure and Ctrl-C too."""

  def __init__(self, area):
    if os.geteuid() != 0:
      raise Unavailable("a memory cgroup and a swap area take root")
    if not os.path.exists("/proc/swaps"):
      raise Unavailable("this kernel has no swap (CONFIG_SWAP)")
    self.cgroup = MemoryCgroup()
    self.area = area

  def __enter__(self):
    try:
      self.cgroup.make()
      self.area.make()
    except BaseException:
      self.close()
      raise
    return self

  def __exit__(self, *_):
    self.close()

  def close(self):
    """An impatient second Ctrl-C waits until all is removed."""
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
      self.cgroup.remove()
    finally:
      try:
        self.area.remove()
      finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

  def describe(self):
    return {
      "cgroup": f"v{self.cgroup.version}",
      "swappiness": self.cgroup.swappiness(),
      "page_cluster": int(read_text("/proc/sys/vm/page-cluster", "0")),
      "zswap": read_text("/sys/module/zswap/parameters/enabled", "N").strip(),
      "swap_bytes": self.area.size,
    }
