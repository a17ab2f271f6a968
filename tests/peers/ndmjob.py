"""Debian's `ndmjob` (package amanda-common) as a DMA against a tape server: queries, robot,
labels, backup by its own data agent, restore, and its conformance checks of tape and mover.

ndmjob's exit code says little (0 after a refused password), so every check reads what it prints.
"""

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from report import Failed, Report, compare_trees, make_tree, want

PROGRAM = "/usr/lib/amanda/ndmjob"
HERE = Path(__file__).resolve().parent
RECORD = 10240  # ndmjob's default record size: -b 20, in units of 512 bytes
PATIENCE = 120


@dataclass
class Library:
    """A library of the server: its changer, its drives and what should lie in its slots."""

    changer: str
    drives: list
    barcodes: list
    first_slot: int = 1024
    first_drive: int = 128
    first_door: int = 0
    slots: int = 0
    doors: int = 2


@dataclass
class Server:
    """The tape server under test."""

    address: str  # HOST:PORT
    user: str
    password: str
    library: Library
    # A library whose tapes are too small for one backup, for spanning by end of medium.
    small: Library = None
    # Where the library is copied to, tape by tape.
    other: Library = None
    # ndmjob's simulator: it lists no devices and its robot can not take inventory.
    simulated: bool = False
    # What this server is known not to do, as (part of a check's name, reason).
    waived: list = field(default_factory=list)

    def agent(self, version: int = 4, auth: str = "m") -> str:
        """ndmjob's way to say where an agent is and how to log in."""
        return f"{self.address}/{version}{auth},{self.user},{self.password}"


class Ndmjob:
    """Runs ndmjob in a directory of its own and keeps what it printed."""

    def __init__(self, work: Path) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self.runs = 0

    def run(self, *arguments, env=None) -> str:
        """One run; its output, standard error included, also kept as a file."""
        self.runs += 1
        command = [PROGRAM, *map(str, arguments), "-o", "no-time-stamps"]
        try:
            done = subprocess.run(
                command, cwd=self.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=PATIENCE, env={**os.environ, **(env or {})},
                check=False)
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b"").decode(errors="replace")
            raise Failed(f"ndmjob still runs after {PATIENCE} s; it said: {text[-800:]}") from late
        text = done.stdout.decode(errors="replace")
        log = " ".join(command) + "\n" + text
        (self.work / f"run{self.runs:03}.log").write_text(log, encoding="utf-8")
        return text

    def must_say(self, expected: str, *arguments, env=None) -> str:
        """One run whose output must contain `expected`."""
        text = self.run(*arguments, env=env)
        want(expected in text, f"ndmjob {' '.join(map(str, arguments[:6]))} ... did not say "
             f"{expected!r} but: {text[-800:]}")
        return text


class DataAgent:
    """ndmjob as a daemon: the data service of a file server, with `wrap_sh` for its backups."""

    def __init__(self, work: Path, port: int) -> None:
        work.mkdir(parents=True)
        tools = work / "bin"
        tools.mkdir()
        shutil.copy(HERE / "wrap_sh", tools / "wrap_sh")
        config = work / "ndmjob.conf"
        config.write_text("[password]\npassword ndmp ndmp\n[butype sh]\nv2attr 0x0\nv3attr 0x0\n"
                          "v4attr 0x0\ndefault_env HIST n\n", encoding="utf-8")
        self.address = f"127.0.0.1:{port}"
        # It says READY when it listens and ends when its standard input does.
        self.process = subprocess.Popen(
            [PROGRAM, "-o", "test-daemon", "-p", str(port), "-o", f"config-file={config}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=work,
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
        line = self.process.stdout.readline()
        want(line.strip() == b"READY", f"ndmjob's daemon said {line!r}")

    def agent(self, version: int) -> str:
        """As in `Server.agent`."""
        return f"{self.address}/{version}m,ndmp,ndmp"

    def stop(self) -> None:
        """Ends it, by its standard input, as it wants it."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def barcodes(query: str) -> dict:
    """Element address to barcode, from the rows of ndmjob's query of a robot."""
    row = re.compile(r"@(\d+)\s+(?:SLOT|IEE|TAPE|ARM)\s+Full\s.*?PVolTag\((\S+?)\s*,")
    return {int(address): tag for address, tag in row.findall(query)}


class Checks:
    """All checks of one server."""

    def __init__(self, report: Report, server: Server, work: Path, data_port: int) -> None:
        self.report, self.server, self.work = report, server, work
        self.ndmjob = Ndmjob(work / "ndmjob")
        self.data = DataAgent(work / "data", data_port)
        self.tree = work / "tree"
        make_tree(self.tree, 3_500_000)

    def run(self) -> None:
        """Every check, in an order in which each finds the tapes it needs."""
        try:
            for version in (4, 3, 2):
                self.check(f"query v{version}", self.query, version)
            self.check("a wrong password is refused", self.wrong_password)
            self.check("robot: inventory, moves, export and import", self.robot)
            for version, auth in ((4, "m"), (4, "t"), (3, "m"), (2, "m")):
                self.check(f"label, v{version} by {'md5' if auth == 'm' else 'text'}",
                           self.label, version, auth)
            for version in (4, 3, 2):
                self.check(f"backup and restore, v{version}", self.backup, version)
                self.check(f"spanning by windows, v{version}", self.spanning, version)
                if self.server.small:
                    self.check(f"spanning by end of medium, v{version}", self.end_of_medium,
                               version)
            self.check("a killed client leaves the drive free", self.killed_client)
            for version in (4, 3, 2):
                self.check(f"test-mover v{version}", self.test_mover, version)
            self.test_tape()
        finally:
            self.data.stop()

    def check(self, name: str, what, *arguments) -> None:
        """One check, unless the server is known not to do it."""
        for part, reason in self.server.waived:
            if part in name:
                self.report.skip(f"ndmjob: {name}", reason)
                return
        with self.report.check(f"ndmjob: {name}"):
            what(*arguments)

    def query(self, version: int) -> None:
        """The agents' descriptions name every device, and the robot every barcode."""
        agent, library = self.server.agent(version), self.server.library
        text = self.ndmjob.must_say('SESS "Operation complete"', "-q", "-v", "-T", agent, "-R",
                                    agent, "-r", library.changer)
        if version > 2 and not self.server.simulated:
            for device in [library.changer, *library.drives]:
                want(device in text, f"{device} is not listed: {text[-1500:]}")
        found = barcodes(text)
        want(list(found.values()) == library.barcodes,
             f"barcodes are {found}, expected {library.barcodes}")
        want(f"slots {library.slots}@{library.first_slot}" in text, "other slots than configured")

    def wrong_password(self) -> None:
        """By MD5 and by text."""
        for auth in "mt":
            agent = f"{self.server.address}/4{auth},{self.server.user},not-the-password"
            text = self.ndmjob.run("-q", "-v", "-T", agent)
            want("auth" in text and "Host info" not in text, f"it was let in: {text[-500:]}")

    def robot_run(self, *arguments) -> str:
        """A command of the robot that must succeed."""
        text = self.ndmjob.must_say('SESS "Operation complete"', "-v", "-R", self.server.agent(),
                                    "-r", self.server.library.changer, *arguments)
        want("had problems" not in text and "failed" not in text, text[-800:])
        return text

    def where(self) -> dict:
        """Element address to barcode, as the robot says now."""
        return barcodes(self.robot_run("-q"))

    def robot(self) -> None:
        """Inventory, slot to drive and back, out of the door and in again."""
        library = self.server.library
        if not self.server.simulated:
            self.robot_run("-o", "init-elem-status")
        slot, drive, door = library.first_slot, library.first_drive, library.first_door
        tag = library.barcodes[0]
        self.robot_run("-o", "move", "-o", f"from-addr={slot}", "-o", f"to-addr={drive}")
        if not self.server.simulated:
            want(self.where().get(drive) == tag, f"{tag} is not in the drive: {self.where()}")
        self.robot_run("-T", self.server.agent(), "-f", library.drives[0], "-o", f"unload={slot}")
        want(self.where().get(slot) == tag, f"{tag} is not back: {self.where()}")
        self.robot_run("-o", f"export={slot}")
        want(self.where().get(door) == tag, f"{tag} is not at the door: {self.where()}")
        self.robot_run("-o", f"import={slot}")
        want(self.where().get(slot) == tag, f"{tag} did not come in: {self.where()}")

    def load(self, number: int) -> None:
        """Cartridge `number` into the first drive."""
        library = self.server.library
        self.robot_run("-o", "move", "-o", f"from-addr={library.first_slot + number}", "-o",
                       f"to-addr={library.first_drive}")

    def unload(self, number: int) -> None:
        """Back to its slot."""
        library = self.server.library
        self.robot_run("-T", self.server.agent(), "-f", library.drives[0], "-o",
                       f"unload={library.first_slot + number}")

    def label(self, version: int, auth: str) -> None:
        """A label written is the label read."""
        agent, name = self.server.agent(version, auth), f"LBL{version}{auth}"
        drive = self.server.library.drives[0]
        self.load(0)
        try:
            self.ndmjob.run("-o", "init-labels", "-T", agent, "-f", drive, f"-m{name}")
            self.ndmjob.must_say(f'ME "{name}"', "-l", "-T", agent, "-f", drive)
        finally:
            self.unload(0)

    def backup(self, version: int) -> None:
        """A tree onto one tape and back, compared file by file."""
        agent, drive = self.server.agent(version), self.server.library.drives[0]
        data = self.data.agent(version)
        index, out = self.work / f"idx{version}", self.work / f"out{version}"
        out.mkdir()
        self.load(1)
        try:
            self.ndmjob.run("-o", "init-labels", "-T", agent, "-f", drive, "-mONE")
            self.ndmjob.must_say(
                'SESS "Operation ended OKAY"', "-c", "-v", "-B", "sh", "-D", data, "-T", agent,
                "-f", drive, "-m", "ONE+1", "-C", self.tree, "-I", index)
            self.ndmjob.must_say(
                'SESS "Operation ended OKAY"', "-x", "-v", "-B", "sh", "-D", data, "-T", agent,
                "-f", drive, "-J", index, "-E", f"OUT={out}", "-F", "/")
        finally:
            self.unload(1)
        compare_trees(self.tree, out)

    def volumes(self, name: str, version: int, library: Library, windows: list) -> str:
        """A backup over three cartridges and its restore; what ndmjob said of the backup."""
        agent, data, drive = self.server.agent(version), self.data.agent(version), library.drives[0]
        index, out = self.work / f"{name}{version}.idx", self.work / f"{name}{version}"
        out.mkdir()
        slots = [library.first_slot + i for i in range(3)]
        robot = ["-R", agent, "-r", library.changer, "-o", f"tape-addr={library.first_drive}",
                 "-T", agent, "-f", drive]
        labels = [f"-m{name}{i}@{slot}" for i, slot in enumerate(slots)]
        self.ndmjob.run("-o", "init-labels", *robot, *labels)
        media = [f"-m{name}{i}+1@{slot}{window}"
                 for i, (slot, window) in enumerate(zip(slots, windows))]
        said = self.ndmjob.must_say(
            'SESS "Operation ended OKAY"', "-c", "-v", "-B", "sh", "-D", data, *robot, *media,
            "-C", self.tree, "-I", index)
        self.ndmjob.must_say(
            'SESS "Operation ended OKAY"', "-x", "-v", "-B", "sh", "-D", data, *robot, "-J", index,
            "-E", f"OUT={out}", "-F", "/")
        compare_trees(self.tree, out)
        return said

    def spanning(self, version: int) -> None:
        """Two windows, each the limit of one tape, and the rest on a third."""
        window = f"/{100 * RECORD}"
        said = self.volumes("WIN", version, self.server.library, [window, window, ""])
        want(said.count("Operation requires next tape") == 2, f"not two changes: {said[-800:]}")

    def end_of_medium(self, version: int) -> None:
        """Tapes that are full before the backup is."""
        said = self.volumes("EOM", version, self.server.small, ["", "", ""])
        want("Operation requires next tape" in said, f"no change of tape: {said[-800:]}")

    def killed_client(self) -> None:
        """A client that dies in the middle of a backup is an abort: drive and robot come free."""
        agent, drive = self.server.agent(), self.server.library.drives[0]
        self.load(2)
        self.ndmjob.run("-o", "init-labels", "-T", agent, "-f", drive, "-mGONE")
        client = subprocess.Popen(
            [PROGRAM, "-c", "-v", "-B", "sh", "-D", self.data.agent(4), "-T", agent, "-f", drive,
             "-m", "GONE+1", "-C", str(self.tree), "-I", str(self.work / "gone.idx")],
            cwd=self.ndmjob.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        for line in client.stdout:
            if b"mover going active" in line or b"Operation started" in line:
                break
        client.send_signal(signal.SIGKILL)
        client.wait()
        client.stdout.close()
        # The next client waits for the drive as real ones do: by asking again.
        self.ndmjob.must_say('ME "GONE"', "-l", "-T", agent, "-f", drive, "-o", "tape-timeout=20")
        self.unload(2)

    def conformance(self, test: str, version: int, env=None) -> str:
        """What one of ndmjob's conformance sets printed, run on a scratch tape."""
        self.load(3)
        try:
            return self.ndmjob.run("-o", test, "-v", "-T", self.server.agent(version), "-f",
                                   self.server.library.drives[0], env=env)
        finally:
            self.unload(3)

    def test_mover(self, version: int) -> None:
        """All hundred."""
        text = self.conformance("test-mover", version)
        expected = "FINAL test-mover Passed -- pass=100 warn=0 fail=0 (total 100)"
        want(expected in text, text[-1500:])
        want("LOCAL and TCP addressing tested." in text, text[-500:])

    def test_tape(self) -> None:
        """As far as the client can go: its own fill pattern breaks its compare at T-BWR #23."""
        shim = self.work / "zero_alloc.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if not compiler:
            self.report.skip("ndmjob: test-tape", "no C compiler for the client's mend")
            return
        subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, HERE / "zero_alloc.c"], check=True)
        for version in (4, 3, 2):
            self.check(f"test-tape v{version}", self.tape_version, version, shim)

    def tape_version(self, version: int, shim: Path) -> None:
        """Four series pass whole, and the first failure is the client's known one or none."""
        text = self.conformance("test-tape", version, env={"LD_PRELOAD": str(shim)})
        for series, total in (("T-OC", 8), ("T-BGS", 4), ("T-BW", 13), ("T-BR", 20)):
            line = f"Test {series} Passed -- pass={total} warn=0 fail=0 (total {total})"
            want(line in text, f"no {line!r}: {text[-1500:]}")
        failure = re.search(r'TEST "([^"]*#\d+[^"]*(?:[Ff]ail|FAIL)[^"]*)"', text)
        known = failure is None or "T-BWR #23" in failure.group(1)
        want(known, f"another failure: {failure and failure.group(1)}")
