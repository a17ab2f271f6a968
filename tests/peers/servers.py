"""Tape servers to run the peers against."""

import os
import re
import subprocess
import time
import tomllib
from pathlib import Path

import ndmjob
import smis
from ports import free_port
from report import want

HERE = Path(__file__).resolve().parent


def program() -> str:
    """Where twinreel is."""
    return os.environ.get("TWINREEL_BIN", str(HERE.parents[1] / "target/release/twinreel"))


class Simulator:
    """ndmjob's own tape server with its simulated robot: not ours, so that the checks can be
    judged by a server that others trust."""

    def __init__(self, work: Path) -> None:
        self.agent = ndmjob.DataAgent(work / "daemon", free_port())
        library, other = (self.robot(work / name) for name in ("robot", "other"))
        self.server = ndmjob.Server(self.agent.address, "ndmp", "ndmp", library, other=other,
                                    simulated=True, waived=[
            ("spanning by windows", "it posts PAUSED(SEEK) where a window ends"),
            ("test-tape", "it fails its own set at T-BW #6"),
            ("test-mover v3", "it refuses SET_WINDOW in IDLE"),
            ("a killed client", "it leaves its lock file behind"),
            ("test-mover v2", "it refuses SET_WINDOW in IDLE"),
        ])

    @staticmethod
    def robot(directory: Path) -> ndmjob.Library:
        """A directory that the simulator fills with a library of its own making."""
        directory.mkdir(parents=True)
        return ndmjob.Library(
            changer=str(directory), drives=[str(directory / f"drive{i}") for i in range(2)],
            barcodes=[f"PTAG{i:02}XX" for i in range(10)], slots=10)

    def stop(self) -> None:
        """Ends it."""
        self.agent.stop()


# A library whose tapes hold a third of the tree that is backed up.
SMALL = """
[[virtual_library]]
name = "tiny0"
drives = 1
slots = 4
import_export = 1
capacity = "2MB"
cartridges = { prefix = "TNY", count = 4 }
"""


# The server for management applications; the certificate is that of the pair.
SMIS = """
[smis]
http = "{http}"
https = "{https}"
certificate = "pki/hq.pem"
key = "pki/hq.key"
login_attempts = 0

[[smis.user]]
name = "smis"
password = "peers"
"""

# The status page.
ADMIN = """
[admin]
http = "{http}"
"""


class Pair:
    """Both engines as `twinreel init` sets them up, on free ports; with `library`, a configuration
    of a library named ptl0, in place of the one made of files; `more` is added for the local one."""

    def __init__(self, work: Path, library: str = "", more: str = "") -> None:
        self.work, self.processes = work, []
        binary = program()
        subprocess.run([binary, "init", work], stdin=subprocess.DEVNULL, check=True)
        address, link = (f"127.0.0.1:{free_port()}" for _ in range(2))
        plain, secure = (f"127.0.0.1:{free_port()}" for _ in range(2))
        pages = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        more += SMALL + SMIS.format(http=plain, https=secure) + ADMIN.format(http=pages[0])
        local = self.rewrite("local.toml", {"listen": address, "connect": link}, more)
        if library:
            self.replace_library(library)
        remote = self.rewrite("remote.toml", {"listen": link}, ADMIN.format(http=pages[1]))
        for role in ("remote", "local"):
            self.start(binary, role)
        if library:
            return
        virtual = local["virtual_library"]
        ghost = self.library(remote["physical_library"][0], f"{remote['site']['name']}-")
        self.server = ndmjob.Server(address, *self.user(local), self.library(virtual[0]),
                                    small=self.library(virtual[-1]), other=ghost)
        self.pages = pages
        self.smis = smis.Server(plain, secure, "smis", "peers", work / "local.toml", binary)

    def replace_library(self, library: str) -> None:
        """Puts another library into the remote engine's configuration."""
        path = self.work / "remote.toml"
        tables = re.split(r"(?m)^(?=\[)", path.read_text(encoding="utf-8"))
        kept = [table for table in tables if not table.startswith("[[physical_library]]")]
        want(len(kept) == len(tables) - 1, "remote.toml has not one physical library")
        path.write_text("".join(kept) + "\n" + library, encoding="utf-8")

    def rewrite(self, name: str, values: dict, more: str) -> dict:
        """Puts other values into a configuration, adds to it, and reads it."""
        path = self.work / name
        text = path.read_text(encoding="utf-8")
        for key, value in values.items():
            text, count = re.subn(rf'(?m)^(\s*{key}\s*=\s*)"[^"]*"', rf'\g<1>"{value}"', text)
            want(count == 1, f"{count} lines {key} = ... in {name}")
        path.write_text(text + more, encoding="utf-8")
        return tomllib.loads(text + more)

    def start(self, binary: str, role: str) -> None:
        """Starts an engine and waits until it says that it is ready."""
        log = self.work / f"{role}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [binary, f"{role}-engine", "serve", "--config", self.work / f"{role}.toml"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, "NO_COLOR": "1"})
        self.processes.append(process)
        deadline = time.monotonic() + 30
        while f"{role}-engine ready".encode() not in log.read_bytes():
            want(process.poll() is None, f"{role}-engine ended: {log.read_text()[-800:]}")
            want(time.monotonic() < deadline, f"{role}-engine is not ready: {log.read_text()}")
            time.sleep(0.05)

    def user(self, config: dict) -> tuple:
        """Name and password of the first NDMP user."""
        user = config["ndmp"]["user"][0]
        password = user.get("password")
        if password is None:
            password = (self.work / user["password_file"]).read_text(encoding="utf-8").strip()
        return user["name"], password

    @staticmethod
    def library(config: dict, prefix: str = "") -> ndmjob.Library:
        """A library as configured, with the names and barcodes it must have."""
        name, tapes = prefix + config["name"], config["cartridges"]
        digits = 6 - len(tapes["prefix"])
        return ndmjob.Library(
            changer=f"{name}/changer",
            drives=[f"{name}/drive{i}" for i in range(config["drives"])],
            barcodes=[f"{tapes['prefix']}{i + 1:0{digits}}L8" for i in range(tapes["count"])],
            slots=config["slots"], doors=config["import_export"])

    def stop(self) -> None:
        """SIGTERM to both, and their ends awaited; an engine that does not end is killed."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
