#!/usr/bin/env python3
"""The daemon as a process: starts, refuses, is talked to, and ends. Its pager is a fake.

Arguments: the executable, the source directory, the service file. Prints TAP.
"""
import json, os, shutil, signal, socket, subprocess, sys, tempfile, time, traceback

DAEMON, SOURCE, SERVICE = sys.argv[1:4]
CREATE = {"method": "io.upager.Pager.Create", "parameters": {"name": "g", "limit": 1 << 26}}


class Daemon:
    """One daemon in a directory of its own."""

    def __init__(self, *arguments, directory=None, config=None, start=True, **options):
        self.directory = directory or tempfile.mkdtemp(prefix="upagerd-test-")
        self.socket = self.directory + "/run/sock"
        self.swap = self.directory + "/swap"
        self.config = config or {"socket": self.socket,
                                 "swap": [{"path": self.swap, "size": "1M", "direct": False}]}
        self.arguments = arguments or ("--config", self.write_config())
        self.process = subprocess.Popen([DAEMON, *self.arguments], stderr=subprocess.PIPE,
                                        stdin=subprocess.DEVNULL, text=True, **options)
        if start:
            wait(self.listens)

    def listens(self):
        """A socket is there for a moment before anybody listens on it."""
        if not os.path.exists(self.socket + ".session"):
            return False
        with socket.socket(socket.AF_UNIX) as control:
            return control.connect_ex(self.socket) == 0

    def write_config(self):
        path = self.directory + "/upagerd.json"
        with open(path, "w") as file:
            json.dump(self.config, file)
        return path

    def connect(self):
        return Connection(self.socket)

    def end(self, signum=signal.SIGTERM):
        """Its exit status and what it said."""
        if signum:
            self.process.send_signal(signum)
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        shutil.rmtree(self.directory, ignore_errors=True)


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self.data = b""

    def send(self, call):
        self.socket.sendall(json.dumps(call).encode() + b"\0")

    def receive(self):
        while b"\0" not in self.data:
            part = self.socket.recv(65536)
            if not part:
                return None
            self.data += part
        message, self.data = self.data.split(b"\0", 1)
        return json.loads(message)

    def call(self, call):
        self.send(call)
        return self.receive()


def wait(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def expect(actual, expected):
    assert actual == expected, f"{actual!r} instead of {expected!r}"


def expect_in(part, text):
    assert part in text, f"{part!r} is not in {text!r}"


def private_directories(pid):
    """Those of one daemon: others may run on this machine."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"upager-{pid}-")]


def private_swaps(pid):
    return [name for name in os.listdir("/var/tmp") if name.startswith(f"upager-{pid}-")]


def test_life():
    with Daemon() as d:
        expect(os.stat(d.socket).st_mode & 0o777, 0o666)
        expect(os.stat(d.socket + ".session").st_mode & 0o777, 0o666)
        expect(d.connect().call({"method": "io.upager.Pager.List"}),
               {"parameters": {"groups": []}})
        assert os.path.exists(d.swap)
        status, said = d.end()
        expect(status, 0)
        expect_in("upagerd: listening on " + d.socket, said)
        assert not os.path.exists(d.directory + "/run")
        assert not os.path.exists(d.swap)
    expect(private_directories(d.process.pid), [])


def test_interface_is_the_file():
    with Daemon() as d:
        reply = d.connect().call({"method": "org.varlink.service.GetInterfaceDescription",
                                  "parameters": {"interface": "io.upager.Pager"}})
        with open(SOURCE + "/daemon/io.upager.Pager.varlink") as file:
            expect(reply["parameters"]["description"], file.read())


def test_two_daemons():
    with Daemon() as first:
        with Daemon("--config", first.directory + "/upagerd.json", start=False) as second:
            status, said = second.end(None)
            expect(status, 1)
            expect(said, f"upagerd: another upagerd (pid {first.process.pid}) listens on "
                         f"{first.socket}\n")
        first.connect().call({"method": "io.upager.Pager.List"})
        expect(first.end()[0], 0)


def test_killed_daemon_leaves_no_trace():
    first = Daemon()
    first.end(signal.SIGKILL)
    assert os.path.exists(first.socket)
    os.unlink(first.socket + ".session")
    with Daemon(directory=first.directory) as second:
        second.connect().call({"method": "io.upager.Pager.List"})
        expect(second.end()[0], 0)
    for daemon in first, second:
        expect(private_directories(daemon.process.pid), [])


def test_configuration_errors():
    with tempfile.TemporaryDirectory() as directory:
        path = directory + "/c.json"
        for text, said in ((('{"swap": [{"path": "/x", "size": true}]}'),
                            f'{path}: swap[0].size: expected a size such as "8G", got true'),
                           ("{\n3", f"{path}:2:1: string or '}}' expected near '3'")):
            with open(path, "w") as file:
                file.write(text)
            r = subprocess.run([DAEMON, "--config", path], capture_output=True, text=True)
            expect((r.returncode, r.stderr), (1, f"upagerd: {said}\n"))
        r = subprocess.run([DAEMON, "--config", "-"], input='{"workers": 0}',
                           capture_output=True, text=True)
        expect_in("configuration: workers: expected", r.stderr)


def test_command_line():
    for arguments, status, out, err in (
            (["--version"], 0, "upagerd 0", ""), (["--help"], 0, "--config FILE", ""),
            (["--help-config"], 0, "swap[].size\n", ""), (["--what"], 2, "", "unrecognized"),
            (["here"], 2, "", 'unexpected argument "here"'),
            (["--socket", "x"], 2, "", "expected an absolute path"),
            (["--embedded", "x"], 2, "", "expected the number of an open descriptor"),
            (["--config", "/no/such"], 1, "", "upagerd: /no/such: No such file or directory\n")):
        r = subprocess.run([DAEMON, *arguments], capture_output=True, text=True)
        expect(r.returncode, status)
        expect_in(out, r.stdout)
        expect_in(err, r.stderr)


def test_journal_priorities():
    with Daemon(start=False) as d:
        d.end(signal.SIGKILL)
    with tempfile.TemporaryFile() as file:
        st = os.fstat(file.fileno())
        environment = dict(os.environ, JOURNAL_STREAM=f"{st.st_dev}:{st.st_ino}")
        subprocess.run([DAEMON, "--config", "/no/such"], stderr=file, env=environment)
        file.seek(0)
        expect(file.read(), b"<3>/no/such: No such file or directory\n")


def test_owner_closes():
    with Daemon() as d:
        owner, other = d.connect(), d.connect()
        assert "key" in owner.call(CREATE)["parameters"]
        other.send({"method": "io.upager.Pager.Monitor", "more": True,
                    "parameters": {"group": "g", "interval_ms": 60000}})
        expect(other.receive()["parameters"]["groups"][0]["name"], "g")
        owner.socket.close()
        while (reply := other.receive()).get("continues"):
            pass
        expect([e["kind"] for e in reply["parameters"]["events"]], ["group_ended"])
        expect(other.call({"method": "io.upager.Pager.List"})["parameters"]["groups"], [])
        expect(d.end()[0], 0)


def test_owner_closes_kills_what_never_attached():
    with Daemon() as d:
        owner = d.connect()
        key = owner.call(CREATE)["parameters"]["key"]
        shell = "sleep 1000 & wait"
        ours = subprocess.Popen(["sh", "-c", shell], env={"UPAGER_GROUP": key},
                                stdout=subprocess.PIPE)
        theirs = subprocess.Popen(["sleep", "1000"], env={"UPAGER_GROUP": key[:-1] + "x"})
        time.sleep(0.2)
        owner.socket.close()
        ours.communicate(timeout=10)  # the pipe ends with the last of them
        expect(ours.returncode, -signal.SIGKILL)
        expect(theirs.poll(), None)
        theirs.kill()
        theirs.wait()
        expect(d.end()[0], 0)


def test_slow_reader_is_dropped():
    with Daemon() as d:
        slow, other = d.connect(), d.connect()
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        call = {"method": "org.varlink.service.GetInterfaceDescription",
                "parameters": {"interface": "io.upager.Pager"}}
        calls = (json.dumps(call).encode() + b"\0") * 4000
        try:
            slow.socket.sendall(calls)
        except (ConnectionError, TimeoutError):
            pass
        other.call({"method": "io.upager.Pager.List"})
        expect_in("dropped: it does not read its replies", d.end()[1])


def test_oversized_message():
    with Daemon() as d:
        c = d.connect()
        c.socket.sendall(b"x" * ((1 << 20) + 1) + b"x")
        expect(c.receive()["error"], "org.varlink.service.InvalidParameter")
        expect(c.receive(), None)
        d.connect().call({"method": "io.upager.Pager.List"})


def test_noise_is_survived():
    with Daemon() as d:
        for i in range(20):
            c = d.connect()
            c.socket.sendall(os.urandom(5000) + b"\0")
            c.receive()
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(d.socket + ".session")
        s.send(os.urandom(64))
        s.close()
        d.connect().call({"method": "io.upager.Pager.List"})
        expect(d.end()[0], 0)


def activated(d, kinds):
    """Starts a daemon that finds listening sockets at descriptor 3 and beyond."""
    os.makedirs(d["directory"] + "/run")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        for i, kind in enumerate(kinds):
            s = socket.socket(socket.AF_UNIX, kind)
            suffix = ".session" if kind == socket.SOCK_SEQPACKET else ""
            s.bind(d["socket"] + suffix)
            s.listen()
            os.dup2(s.fileno(), 50 + i)
        for i in range(len(kinds)):
            os.dup2(50 + i, 3 + i)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kinds)),
                          LISTEN_FDNAMES=":".join(["upagerd"] * len(kinds)),
                          NOTIFY_SOCKET=d["notify"])
        os.execv(DAEMON, [DAEMON, "--config", d["config"]])
    os.close(read)
    return pid, write


def test_socket_activation():
    directory = tempfile.mkdtemp(prefix="upagerd-test-")
    d = {"directory": directory, "socket": directory + "/run/sock",
         "config": directory + "/upagerd.json", "notify": directory + "/notify"}
    with open(d["config"], "w") as file:
        json.dump({"socket": d["socket"], "swap": []}, file)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(d["notify"])
    notify.settimeout(10)
    pid, _ = activated(d, [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
    expect_in(b"READY=1", notify.recv(4096))
    Connection(d["socket"]).call({"method": "io.upager.Pager.List"})
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(d["socket"] + ".session")
    expect(len(s.recv(100)), 16)
    os.kill(pid, signal.SIGTERM)
    expect_in(b"STOPPING=1", notify.recv(4096))
    expect(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
    assert os.path.exists(d["socket"]), "systemd's socket was removed"
    shutil.rmtree(directory)


def embedded(config=None, **options):
    ours, theirs = socket.socketpair()
    arguments = [DAEMON, "--embedded", str(theirs.fileno())]
    if config is not None:
        arguments += ["--config", "-"]
    process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, **options)
    process.stdin.write(json.dumps(config))
    process.stdin.close()
    process.stdin = None
    theirs.close()
    ours.settimeout(20)
    line = b""
    while not line.endswith(b"\n"):
        part = ours.recv(4096)
        assert part, process.communicate()
        line += part
    return process, ours, json.loads(line)


def test_embedded_life():
    process, ours, ready = embedded(env=dict(os.environ, TMPDIR="/var/tmp"))
    expect(ready["ready"], True)
    directory = os.path.dirname(ready["socket"])
    expect(os.stat(directory).st_mode & 0o777, 0o711)
    expect(len(private_swaps(process.pid)), 1)
    expect(os.getsid(process.pid), process.pid)
    c = Connection(ready["socket"])
    c.call(CREATE)
    ours.close()  # with a group, its owner decides
    expect(len(c.call({"method": "io.upager.Pager.List"})["parameters"]["groups"]), 1)
    c.socket.close()
    _, said = process.communicate(timeout=20)
    expect((process.returncode, said), (0, ""))
    expect(private_directories(process.pid) + private_swaps(process.pid), [])


def test_embedded_ends_with_its_starter():
    process, ours, ready = embedded({"swap": []})
    ours.close()
    process.communicate(timeout=20)
    expect(process.returncode, 0)
    expect(private_directories(process.pid), [])


def test_embedded_failure():
    process, ours, ready = embedded({"swap": [{"path": "/no/such/dir/swap", "size": "1M"}]})
    expect_in("swap[0].path: /no/such/dir/swap: can't make it", ready["error"])
    process.communicate(timeout=20)
    expect(process.returncode, 1)


def test_embedded_crash_is_swept():
    process, ours, ready = embedded(env=dict(os.environ, TMPDIR="/var/tmp"))
    process.kill()
    process.communicate()
    expect(len(private_directories(process.pid)), 1)
    second, ours, ready = embedded({"swap": []})
    ours.close()
    second.communicate(timeout=20)
    expect(private_directories(process.pid) + private_swaps(process.pid), [])


def test_manual_pages():
    if not shutil.which("mandoc"):
        return "mandoc is not installed"
    for page in ("upagerd.8", "upagerd.json.5"):
        r = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", f"{SOURCE}/man/{page}"],
                           capture_output=True, text=True)
        expect((r.returncode, r.stdout), (0, ""))


def test_systemd_units():
    if not shutil.which("systemd-analyze"):
        return "systemd-analyze is not installed"
    with tempfile.TemporaryDirectory() as directory:
        with open(SERVICE) as file:
            lines = file.read().splitlines()
        # The installed path does not exist yet: what is verified is the rest.
        assert any(line.startswith("ExecStart=/") for line in lines)
        lines = ["ExecStart=/bin/true" if line.startswith("ExecStart=") else
                 "" if line.startswith("Documentation=") else line for line in lines]
        with open(directory + "/upagerd.service", "w") as file:
            file.write("\n".join(lines))
        with open(SOURCE + "/systemd/upagerd.socket") as file:
            text = "\n".join(line for line in file.read().splitlines()
                             if not line.startswith("Documentation="))
        with open(directory + "/upagerd.socket", "w") as file:
            file.write(text)
        r = subprocess.run(["systemd-analyze", "verify", directory + "/upagerd.service",
                            directory + "/upagerd.socket"], capture_output=True, text=True)
        ours = [line for line in (r.stdout + r.stderr).splitlines() if "upagerd" in line]
        expect(ours, [])
        expect(r.returncode, 0)


def main():
    tests = [(name[5:], test) for name, test in globals().items() if name.startswith("test_")]
    print(f"1..{len(tests)}")
    for i, (name, test) in enumerate(tests, 1):
        try:
            skip = test()
            print(f"ok {i} - {name}" + (f" # SKIP {skip}" if skip else ""), flush=True)
        except Exception:
            print("".join("# " + line + "\n" for line in traceback.format_exc().splitlines()) +
                  f"not ok {i} - {name}", flush=True)


main()
