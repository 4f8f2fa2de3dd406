"""What the tests of the command line share: TAP, a scratch directory, the fake daemon."""
import json, os, pathlib, shutil, signal, subprocess, sys, tempfile, time, traceback

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("UPAGER_BUILD", HERE.parent.parent / "build"))
UPAGER = str(BUILD / "client" / "upager")
FAKE = str(HERE / "fake_upagerd")
SYSTEM_SOCKET = "/run/upager/upagerd.sock"

tests = []


class Skip(Exception):
  pass


def test(function):
  tests.append(function)
  return function


class Scratch:
  """A directory, an environment in which `upager` finds the fake daemon, and processes."""

  def __init__(self):
    self.path = pathlib.Path(tempfile.mkdtemp(prefix="upager-cli-"))
    self.stub = str(self.path / "stub.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", self.stub, "-x", "c", "/dev/null"],
                   check=True)
    self.env = dict(os.environ, UPAGERD=FAKE, UPAGER_PRELOAD=self.stub,
                    FAKE_NOTE=str(self.path / "note"))
    for name in ("LD_PRELOAD", "UPAGER_SOCKET", "UPAGER_GROUP", "NO_COLOR"):
      self.env.pop(name, None)
    self.started = []

  def upager(self, *args, env=None, **kwargs):
    kwargs.setdefault("timeout", 30)
    return subprocess.run([UPAGER, *map(str, args)], env=dict(self.env, **(env or {})),
                          capture_output=True, text=True, **kwargs)

  def run(self, *command, options=(), **kwargs):
    """`upager run` with a private daemon, whatever the machine has."""
    return self.upager("run", "--swap-size", "64M", *options, "--", *command, **kwargs)

  def popen(self, *args, env=None, **kwargs):
    process = subprocess.Popen([UPAGER, *map(str, args)], env=dict(self.env, **(env or {})),
                               text=True, **kwargs)
    self.started.append(process)
    return process

  def shared(self, env=None):
    """A fake daemon that is not embedded; its socket."""
    socket = str(self.path / "d.sock")
    process = subprocess.Popen([FAKE, "--socket", socket], stdout=subprocess.PIPE,
                               env=dict(self.env, **(env or {})))
    self.started.append(process)
    process.stdout.readline()
    return socket

  def note(self):
    return json.loads((self.path / "note").read_text())

  def script(self, text, name="script"):
    path = self.path / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)

  def done(self):
    for process in self.started:
      if process.poll() is None:
        process.kill()
      process.wait()
    shutil.rmtree(self.path, ignore_errors=True)


def refused(result, status, *words):
  assert result.returncode == status, (result.returncode, result.stderr)
  assert result.stdout == "", result.stdout
  assert result.stderr.startswith("upager: "), result.stderr
  for word in words:
    assert word in result.stderr, (word, result.stderr)


def wait_until(condition, seconds=10, what="condition"):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, f"waited {seconds} s for: {what}"
    time.sleep(0.01)


def alive(pid):
  try:
    with open(f"/proc/{pid}/stat") as file:
      return file.read().rsplit(")", 1)[1].split()[0] != "Z"
  except FileNotFoundError:
    return False


def state(pid):
  with open(f"/proc/{pid}/stat") as file:
    return file.read().rsplit(")", 1)[1].split()[0]


def leftovers(note):
  """What a private daemon should not leave behind."""
  paths = [note["socket"], note["private"]]
  paths += [swap["path"] for swap in note["config"]["swap"]]
  return [path for path in paths if os.path.lexists(path)] + \
      ([f"process {note['pid']}"] if alive(note["pid"]) else [])


def main():
  # Whoever starts us in the background has these ignored, and so would what we start.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGQUIT, signal.SIG_DFL)
  if not os.access(UPAGER, os.X_OK):
    print(f"Bail out! {UPAGER} is not built; set UPAGER_BUILD to the build directory")
    sys.exit(1)
  print(f"1..{len(tests)}")
  failed = 0
  for number, function in enumerate(tests, 1):
    scratch = Scratch()
    name = function.__name__.replace("_", " ")
    try:
      function(scratch)
      print(f"ok {number} - {name}", flush=True)
    except Skip as reason:
      print(f"ok {number} - {name} # SKIP {reason}", flush=True)
    except Exception:
      failed += 1
      print(f"not ok {number} - {name}", flush=True)
      for line in traceback.format_exc().splitlines():
        print("# " + line, flush=True)
    finally:
      scratch.done()
  sys.exit(1 if failed else 0)
