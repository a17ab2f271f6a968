"""The maps with Amanda as the host: it backs up to a frontend library, a policy makes the ghost
copy, the library where the tapes lie is taken away, and Amanda restores by the same name.
"""

import json
import re
import subprocess
import time
from pathlib import Path

import amanda
import ndmjob
import servers
from report import Report, want

PATIENCE = 120
TAPES = 4

FRONT = f"""
[[frontend_library]]
name = "front"
drives = 1
slots = {TAPES}
import_export = 1
"""


class Site:
    """A pair whose backup site has a frontend library, and its command line."""

    def __init__(self, work: Path) -> None:
        self.pair = servers.Pair(work, more=FRONT)
        self.config = work / "local.toml"
        self.program = servers.program()
        given = self.pair.server
        first, last = given.library.barcodes[0], given.library.barcodes[TAPES - 1]
        self.tapes = f"vtl0:{first}-{last}"
        first, last = given.other.barcodes[0], given.other.barcodes[TAPES - 1]
        self.ghosts = f"dr-ptl0:{first}-{last}"
        front = ndmjob.Library(changer="front/changer", drives=["front/drive0"],
                               barcodes=given.library.barcodes[:TAPES], slots=TAPES, doors=1)
        self.server = ndmjob.Server(given.address, given.user, given.password, front,
                                    other=given.other)

    def ask(self, *words) -> object:
        """What a command of twinreel answers as JSON."""
        line = [self.program, *words, "--json", "--config", self.config]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=PATIENCE, check=False)
        said = done.stderr.decode(errors="replace")
        want(done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}: {said[-800:]}")
        return json.loads(done.stdout)

    def wait(self, what: str, look) -> object:
        """Looks until there is something."""
        deadline = time.monotonic() + PATIENCE
        while not (found := look()):
            want(time.monotonic() < deadline, f"in vain: {what}")
            time.sleep(0.2)
        return found

    def link_is_up(self) -> bool:
        """Whether the other site is reached."""
        return all(link["up"] for link in self.ask("status")["links"])

    def enter(self) -> None:
        """The map of the frontend, and a copy of each of its tapes."""
        self.wait("the link", self.link_is_up)
        self.wait("the ghost library", lambda: [
            library for library in self.ask("libraries") if library["library"]["name"] == "ptl0"])
        self.ask("map", "set", "vtl0/drive0", "--frontend", "front/drive0", "--tapes", self.tapes)
        self.ask("copy", "set", self.tapes, self.ghosts, "--policy", "always")

    def dismount(self, work: Path) -> None:
        """Takes the tape out of the frontend's drive, as an operator at the robot does."""
        agent = self.server.agent()
        robot = ["-R", agent, "-r", "front/changer"]
        job = ndmjob.Ndmjob(work)
        found = ndmjob.barcodes(job.run(*robot, "-q"))
        drive = self.server.library.first_drive
        want(drive in found, f"no tape is in the drive: {found}")
        free = next(slot for slot in range(self.server.library.first_slot,
                                           self.server.library.first_slot + TAPES)
                    if slot not in found)
        job.run(*robot, "-T", agent, "-f", "front/drive0", "-o", f"unload={free}")
        want(drive not in ndmjob.barcodes(job.run(*robot, "-q")), "it is still in the drive")

    def copied(self) -> list:
        """The entries whose target is a current copy."""
        entries = self.ask("copy", "show")
        return [entry for entry in entries
                if entry["status"] == "done" and entry["changed_from"] is None]

    def take_the_primary_away(self) -> None:
        """The engine starts again without the library in which the tapes lie."""
        local = self.pair.processes.pop()
        local.terminate()
        local.wait(timeout=60)
        tables = re.split(r"(?m)^(?=\[)", self.config.read_text(encoding="utf-8"))
        kept = [table for table in tables
                if not (table.startswith("[[virtual_library]]") and '"vtl0"' in table)]
        want(len(kept) == len(tables) - 1, "local.toml has not one library vtl0")
        self.config.write_text("".join(kept), encoding="utf-8")
        self.pair.start(self.program, "local")
        self.wait("the link", self.link_is_up)
        shown = {library["library"]["name"] for library in self.ask("libraries")}
        want("front" in shown, f"the frontend is gone: {shown}")


def check(report: Report, work: Path) -> None:
    """The whole line, or why it can not be tried."""
    reason = amanda.why_not()
    if reason:
        report.skip("amanda: a frontend, a policy and a lost primary", reason)
        return
    work.mkdir()
    site = Site(work / "pair")
    host = None
    try:
        with report.check("maps: a frontend and a copy of each of its tapes are entered"):
            site.enter()
        host = amanda.Amanda(site.server, work / "amanda", site.server.library,
                             site.server.other)
        with report.check("amanda: a frontend: backup by amdump"):
            host.backup()
        with report.check("maps: what was dismounted is copied to the other site"):
            site.dismount(work / "ndmjob")
            site.wait("a current copy", site.copied)
        with report.check("amanda: a frontend whose primary is gone: restore by amfetchdump"):
            site.take_the_primary_away()
            host.restore("first")
    finally:
        if host:
            host.clean()
        site.pair.stop()
