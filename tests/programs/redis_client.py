"""A small client for redis: one Unix socket, pipelines, replies checked."""

import socket
import time


class RedisError(Exception):
  pass


def encode(args):
  parts = [b"*%d\r\n" % len(args)]
  for arg in args:
    data = arg if isinstance(arg, bytes) else str(arg).encode()
    parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
  return b"".join(parts)


class Redis:
  """=> for a with statement. Errors that the server replies are raised as RedisError."""

  def __init__(self, path, timeout):
    self.socket = socket.socket(socket.AF_UNIX)
    self.socket.settimeout(timeout)
    self.socket.connect(path)
    self.file = self.socket.makefile("rb", 1 << 16)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.file.close()
    self.socket.close()

  def reply(self):
    line = self.file.readline()
    if not line.endswith(b"\r\n"):
      raise RedisError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
      return rest
    if kind == b"-":
      raise RedisError(rest.decode())
    if kind == b":":
      return int(rest)
    if kind == b"$":
      size = int(rest)
      return None if size < 0 else self.file.read(size + 2)[:-2]
    if kind == b"*":
      return [self.reply() for _ in range(int(rest))]
    raise RedisError(f"a reply that is none: {line!r}")

  def call(self, *args):
    self.socket.sendall(encode(args))
    return self.reply()

  def pipeline(self, commands, depth=200):
    """=> the replies in order; `depth` commands are sent at a time."""
    commands = iter(commands)
    while batch := [args for _, args in zip(range(depth), commands)]:
      self.socket.sendall(b"".join(map(encode, batch)))
      for _ in batch:
        yield self.reply()

  def info(self, section):
    lines = self.call("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def connect(path, alive, timeout=60):
  """=> a client, once the server answers. alive() is false when there is no use in waiting."""
  deadline = time.monotonic() + timeout
  while True:
    try:
      client = Redis(path, timeout)
      if client.call("PING") == b"PONG":
        return client
    except (OSError, RedisError) as error:
      if not alive() or time.monotonic() > deadline:
        raise RedisError(f"redis-server does not answer on {path}: {error}") from error
    time.sleep(0.05)
