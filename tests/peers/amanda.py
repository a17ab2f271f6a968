"""Amanda as a DMA: a backup to one library over NDMP, a copy of it to another library by
`amvault` (two NDMP sessions, mover to mover), and a restore from the copy.

Amanda runs as the user `backup` from a configuration in /etc/amanda, so this needs root; it leaves
nothing there. Amanda wants a writable /dev/shm.
"""

import getpass
import grp
import os
import pwd
import re
import shutil
import subprocess
import time
from pathlib import Path

from ndmjob import Library, Server
from report import Failed, Report, compare_trees, make_tree, want

CONFIGURATIONS = Path("/etc/amanda")
USER = "backup"
PATIENCE = 300

# Amanda needs whole parts that can be restored from the first volume, and its own race wants them
# no smaller than 20 MB, so the tapes hold the whole tree.
CONFIGURATION = """
org "twinreel"
mailto ""
dumpuser "{user}"
inparallel 1
dumpcycle 1 day
tapecycle 1 tapes
netusage 800 mbps
etimeout 60
dtimeout 120
ctimeout 30
infofile "{work}/state/curinfo"
logdir "{work}/state/log"
indexdir "{work}/state/index"
holdingdisk disk {{
  directory "{work}/holding"
  use 500 mbytes
}}
define tapetype ndmp {{
  length 200 mbytes
  filemark 0 kbytes
  part-size 20 mbytes
  part-cache-type none
}}
{changers}
define dumptype tree {{
  auth "local"
  program "GNUTAR"
  compress none
  index no
  holdingdisk required
  allow-split yes
}}
storage "first"
vault-storage "second"
"""

CHANGER = """
define changer {name} {{
  tpchanger "chg-ndmp:{address}@{changer}"
  property "tape-device" "0=ndmp:{address}@{drive}"
  property "use-slots" "{slots}"
  changerfile "{work}/state/{name}"
  property "ndmp-username" "{user}"
  property "ndmp-password" "{password}"
  property "ndmp-auth" "md5"
  property "verbose" "TRUE"
  device-property "VERBOSE" "TRUE"
  device-property "INDIRECT" "FALSE"
}}
define storage {name} {{
  tpchanger "{name}"
  tapetype "ndmp"
  tapepool "{name}"
  labelstr MATCH-AUTOLABEL
  autolabel "{name}-%%" empty
  runtapes 1
}}
"""


def why_not() -> str:
    """Why Amanda can not be run here; empty if it can."""
    if not shutil.which("amvault") or not shutil.which("amdump"):
        return "install amanda-server and amanda-client"
    if getpass.getuser() != "root":
        return "it needs root, to run as the user backup"
    if not os.access("/dev/shm", os.W_OK):
        return "/dev/shm can not be written"
    return ""


def slots(library: Library) -> str:
    """All slots as Amanda counts them: from 1, in the order of the elements, doors first."""
    return f"{library.doors + 1}-{library.doors + library.slots}"


class Amanda:
    """One configuration and its runs. Each needs a name of its own: Amanda remembers."""

    def __init__(self, server: Server, work: Path, source: Library, target: Library) -> None:
        self.work = work
        self.name = f"twinreel{os.getpid()}x{time.monotonic_ns() % 100000}"
        self.directory = CONFIGURATIONS / self.name
        self.tree = work / "tree"
        make_tree(self.tree, 30_000_000)
        for part in ("state/log", "state/index", "state/curinfo", "holding", "restore"):
            (work / part).mkdir(parents=True)
        libraries = {"first": source, "second": target}
        changers = "".join(
            CHANGER.format(name=name, address=server.address, changer=library.changer,
                           drive=library.drives[0], slots=slots(library), work=work,
                           user=server.user, password=server.password)
            for name, library in libraries.items())
        self.directory.mkdir()
        (self.directory / "amanda.conf").write_text(
            CONFIGURATION.format(user=USER, work=work, changers=changers), encoding="utf-8")
        (self.directory / "disklist").write_text(f"localhost {self.tree} tree\n", encoding="utf-8")
        for path in (work, self.directory):
            self.give(path)
        # The user backup must be able to walk to its files.
        for parent in work.parents:
            if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):
                parent.chmod(0o711)

    @staticmethod
    def give(path: Path) -> None:
        """All below `path` to Amanda's user."""
        user, group = pwd.getpwnam(USER).pw_uid, grp.getgrnam(USER).gr_gid
        for found in [path, *path.rglob("*")]:
            os.chown(found, user, group, follow_symlinks=False)

    def run(self, *command) -> str:
        """One of Amanda's programs as its user; what it printed. Fails with that if it fails."""
        line = ["runuser", "-u", USER, "--", *map(str, command)]
        done = subprocess.run(line, cwd=self.work / "restore", stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
                              check=False)
        text = done.stdout.decode(errors="replace")
        log = self.work / f"{command[0]}.log"
        log.write_text(" ".join(line) + f"\n{text}\nexit {done.returncode}\n", encoding="utf-8")
        if done.returncode != 0:
            raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}: "
                         f"{text[-1500:]}{self.report()}")
        return text

    def report(self) -> str:
        """The end of Amanda's own log of the last run."""
        logs = sorted((self.work / "state/log").glob("log.*"), key=lambda p: p.stat().st_mtime)
        return "\n" + logs[-1].read_text(errors="replace")[-1500:] if logs else ""

    def backup(self) -> None:
        """A dump of the tree to the holding disk and from there to the source library."""
        self.run("amdump", self.name)
        want("PART taper" in self.report(), f"nothing was written to tape: {self.report()}")

    def copy(self) -> None:
        """The copy from library to library, mover to mover."""
        said = self.run("amvault", "--latest-fulls", "--src-storage", "first", "--dest-storage",
                        "second", self.name)
        want("Wrote second-" in said, f"nothing was copied: {said[-800:]}")
        want(self.direct(), f"the movers were not joined: {said[-800:]}")

    def restore(self, storage: str = "second") -> None:
        """The dump back from a library, unpacked and compared."""
        out = self.work / "out"
        out.mkdir()
        self.run("amfetchdump", f"-ostorage={storage}", "-a", self.name, "localhost", self.tree)
        images = [p for p in (self.work / "restore").iterdir() if p.is_file()]
        want(len(images) == 1, f"amfetchdump left {images}")
        subprocess.run(["tar", "-C", out, "-xpf", images[0]], check=True)
        compare_trees(self.tree, out)

    def direct(self) -> bool:
        """Whether the movers were joined, by Amanda's own account."""
        joined = re.compile(r"<XferSourceRecovery@\w+> -\(DIRECTTCP_\w+\)-> "
                            r"<XferDestTaperDirectTCP@")
        logs = Path("/var/log/amanda/server") / self.name
        return any(joined.search(log.read_text(errors="replace")) for log in logs.glob("amvault.*"))

    def clean(self) -> None:
        """Takes away what was put outside the working directory."""
        shutil.rmtree(self.directory, ignore_errors=True)
        for logs in Path("/var/log/amanda").glob(f"*/{self.name}"):
            shutil.rmtree(logs, ignore_errors=True)


def check(report: Report, server: Server, work: Path, what: str) -> None:
    """Backup to the server's library, copy to its other one, restore from there; `what` says which
    copy this is."""
    reason = why_not()
    if reason:
        report.skip(f"amanda: {what}", reason)
        return
    work.mkdir()
    amanda = Amanda(server, work, server.library, server.other)
    steps = (("backup by amdump", amanda.backup), ("copy by amvault", amanda.copy),
             ("restore of the copy by amfetchdump", amanda.restore))
    try:
        for name, step in steps:
            before = report.failed
            with report.check(f"amanda: {what}: {name}"):
                step()
            if report.failed > before:
                break  # each step needs the one before
    finally:
        amanda.clean()
