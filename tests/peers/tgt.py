"""tgt, a tape library over iSCSI that nobody here wrote, as the physical library of the pair.

Version 1.0.85, which Debian has, is no correct drive: it does not tell positions, has no LOCATE, spaces
back one object too far over a filemark, and hands out garbage where a record is a little shorter than
the read. What is checked here stays within what it can do: records are read with their own length.
"""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import servers
from ports import free_port
from report import Failed, Report, seed, want

TARGET = "iqn.2026-01.test:tgt"
USER, SECRET = "twinreel", "reel-reel-reel-1"
TARGET_USER, TARGET_SECRET = "library", "tape-tape-tape-2"
DRIVES, SLOTS, TAPES = 2, 6, 4
CHANGER_LUN = 1
ARM, DOOR, DRIVE, SLOT = 1, 101, 256, 1001
PATIENCE = 120


def why_not() -> str:
    """Why tgt can not be run here; empty if it can."""
    missing = [name for name in ("tgtd", "tgtadm", "tgtimg") if not shutil.which(name)]
    if missing:
        return "install tgt"
    if os.geteuid() != 0:
        return "it needs root"
    return ""


class Tgt:
    """A tgtd of its own with a changer, two empty drives and four cartridges."""

    def __init__(self, work: Path, chap: bool = True, megabytes: int = 256,
                 digests: bool = True) -> None:
        self.work, self.port, self.chap = work, free_port(), chap
        self.digests = "CRC32C" if digests else "None"
        self.megabytes = megabytes
        (work / "media").mkdir(parents=True)
        # Its own control socket, so that other instances are left alone.
        self.environment = {**os.environ, "TGT_IPC_SOCKET": str(work / "ctl")}
        self.log = (work / "tgtd.log").open("wb")
        self.barcodes = [f"TGT{number:03}L6" for number in range(1, TAPES + 1)]
        for barcode in [*self.barcodes, "blank"]:
            self.image(barcode)
        self.process = None
        self.start()

    @property
    def portal(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def run(self, *command: str) -> None:
        """One of tgt's programs."""
        done = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=PATIENCE, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")

    def admin(self, mode: str, operation: str, *more: str) -> None:
        """tgtadm."""
        self.run("tgtadm", "--lld", "iscsi", "--mode", mode, "--op", operation, *more)

    def image(self, barcode: str) -> None:
        """A cartridge; the name of its file is its barcode."""
        self.run("tgtimg", "--op", "new", "--device-type", "tape", "--barcode", barcode, "--size",
                 str(self.megabytes), "--type", "data", "--file", str(self.work / "media" / barcode),
                 "--thin-provisioning")

    def start(self) -> None:
        """Starts it and sets it up."""
        self.process = subprocess.Popen(
            ["tgtd", "-f", "--iscsi", f"portal={self.portal}"], env=self.environment,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.run("tgtadm", "--mode", "sys", "--op", "show")
                break
            except Failed:
                want(self.process.poll() is None, "tgtd ended")
                want(time.monotonic() < deadline, "tgtd does not come up")
                time.sleep(0.05)
        self.admin("target", "new", "--tid", "1", "-T", TARGET)
        for name, value in [("MaxRecvDataSegmentLength", 262144), ("FirstBurstLength", 262144),
                            ("MaxBurstLength", 1048576), ("InitialR2T", "No"),
                            ("ImmediateData", "Yes"), ("HeaderDigest", self.digests),
                            ("DataDigest", self.digests)]:
            self.admin("target", "update", "--tid", "1", "--name", name, "--value", str(value))
        self.changer()
        for number in range(DRIVES):
            self.drive(number)
        for kind, first, count in [(1, ARM, 1), (3, DOOR, 1), (4, DRIVE, DRIVES), (2, SLOT, SLOTS)]:
            self.update(CHANGER_LUN, f"element_type={kind},start_address={first},quantity={count}")
        for number in range(DRIVES):
            lun = CHANGER_LUN + 1 + number
            self.update(CHANGER_LUN, f"element_type=4,address={DRIVE + number},tid=1,lun={lun}")
        for number, barcode in enumerate(self.barcodes):
            self.update(CHANGER_LUN,
                        f"element_type=2,address={SLOT + number},barcode={barcode},sides=1")
        if self.chap:
            for user, secret in [(USER, SECRET), (TARGET_USER, TARGET_SECRET)]:
                self.admin("account", "new", "--user", user, "--password", secret)
            self.admin("account", "bind", "--tid", "1", "--user", USER)
            self.admin("account", "bind", "--tid", "1", "--user", TARGET_USER, "--outgoing")
        self.admin("target", "bind", "--tid", "1", "-I", "ALL")

    def load(self) -> None:
        """Puts the first cartridge into the first drive, by its file."""
        drive = CHANGER_LUN + 1
        self.update(drive, "online=0")
        self.admin("logicalunit", "update", "--tid", "1", "--lun", str(drive), "--params",
                   f"path={self.work / 'media' / self.barcodes[0]},online=1")

    def update(self, lun: int, parameters: str) -> None:
        """Sets something of a logical unit."""
        self.admin("logicalunit", "update", "--tid", "1", "--lun", str(lun), "--params", parameters)

    def changer(self) -> None:
        """The changer."""
        backing = self.work / "smc"
        backing.write_bytes(bytes(1024))
        self.admin("logicalunit", "new", "--tid", "1", "--lun", str(CHANGER_LUN), "-b",
                   str(backing), "--device-type=changer")
        self.update(CHANGER_LUN, "vendor_id=TGT,product_id=VTL,product_rev=0001,"
                                 "scsi_sn=VTLCHG01,scsi_id=VTLCHG01")
        self.update(CHANGER_LUN, f"media_home={self.work / 'media'}")

    def drive(self, number: int) -> None:
        """A drive; it is made with a cartridge in it, which is then taken away."""
        lun, blank = CHANGER_LUN + 1 + number, self.work / f"blank{number}"
        shutil.copy(self.work / "media" / "blank", blank)
        self.admin("logicalunit", "new", "--tid", "1", "--lun", str(lun), "-b", str(blank),
                   "--device-type=tape")
        serial = f"VTLDRV{number:02}"
        self.update(lun, f"vendor_id=TGT,product_id=ULT3580,product_rev=0001,scsi_sn={serial},"
                         f"scsi_id={serial}")
        self.update(lun, "online=0")

    def kill(self) -> None:
        """Ends the process, as a loss of power would; what is on tape stays."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Ends it, by its process."""
        self.kill()
        self.log.close()


class Line:
    """The pair with the library behind it, and what an administrator types."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True)
        self.work = work
        self.program = servers.program()
        self.tgt = Tgt(work / "tgt")
        self.pair = None

    def stop(self) -> None:
        """Ends everything."""
        if self.pair:
            self.pair.stop()
        self.tgt.stop()

    def run(self, *command: object) -> str:
        """`twinreel ...`; what it printed."""
        done = subprocess.run([self.program, *map(str, command)], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=PATIENCE, check=False)
        if done.returncode != 0:
            log = self.work / "pair" / "remote.log"
            more = log.read_text(errors="replace")[-1500:] if log.exists() else ""
            raise Failed(f"{' '.join(map(str, command))}: {done.stderr.decode()}{more}")
        return done.stdout.decode()

    def dma(self, command: str, *more: object) -> dict:
        """`twinreel dma ...`, its answer."""
        config = self.pair.work / "local.toml"
        return json.loads(self.run("dma", command, *more, "--config", config, "--json") or "{}")

    def secret(self, name: str, text: str) -> Path:
        """A file with a secret."""
        path = self.work / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return path

    def discover(self) -> str:
        """The configuration that `discover` prints, with the other direction of CHAP added."""
        ours = self.secret("ours", SECRET)
        theirs = self.secret("theirs", TARGET_SECRET)
        found = self.run("remote-engine", "discover", self.tgt.portal, "--user", USER,
                         "--secret-file", ours)
        want(f"/{TARGET}/{CHANGER_LUN}" in found, f"the changer was not found: {found}")
        want(found.count("iscsi://") == 1 + DRIVES, f"the drives were not found: {found}")
        mutual = f', target_user = "{TARGET_USER}", target_secret_file = "{theirs}" }}'
        want(found.rstrip().endswith(" }"), f"no chap in {found}")
        return found.rstrip()[:-2] + mutual + "\n"

    def start(self, library: str) -> None:
        """Starts the pair with that library, and waits until the other side shows it."""
        self.pair = servers.Pair(self.work / "pair", library)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.inventory()
                return
            except Failed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def inventory(self) -> dict:
        """Where each cartridge of the ghost library is."""
        elements = self.dma("inventory", "dr-ptl0")
        return {it["barcode"]: it["element"] for it in elements if it["barcode"]}


def copy_and_compare(line: Line) -> None:
    """A backup, its replication, the copy to a tape of the library, and the way back; twice."""
    data = random.Random(seed()).randbytes(20_000_000)
    source, out = line.work / "in", line.work / "out"
    source.write_bytes(data)
    line.dma("backup", source, "--target", "vtl0:VTA001L8")
    done = line.dma("copy", "--source", "vtl0:VTA001L8", "--target", "dr-ptl0:TGT002L6")
    want(any("offloaded" in text for text in done["log"]), f"not offloaded: {done['log']}")
    line.dma("restore", out, "--source", "dr-ptl0:TGT002L6")
    want(out.read_bytes() == data, "what came back is not what was backed up")
    # Again to the same tape, which is overwritten.
    line.dma("copy", "--source", "vtl0:VTA001L8", "--target", "dr-ptl0:TGT002L6")
    line.dma("restore", out, "--source", "dr-ptl0:TGT002L6")
    want(out.read_bytes() == data, "what came back the second time is something else")


def proven(line: Line) -> None:
    """Both engines say of each copy that it was read back and compared."""
    expected = ["readback", "readback"]
    deadline = time.monotonic() + PATIENCE
    while True:
        found = [[verified for (verified,) in sqlite3.connect(path).execute(
            "SELECT verified FROM jobs WHERE kind = 'copy' AND state = 'done' AND path = 'offloaded'")]
            for path in sorted(line.pair.work.glob("*/svs.db"))]
        if found == [expected, expected]:
            return
        if time.monotonic() > deadline:
            raise Failed(f"proven: {found}")
        time.sleep(0.1)


def back_in_their_slots(line: Line) -> None:
    """The ghost library shows every cartridge, and those that were used are back in their slots."""
    found = line.inventory()
    want(sorted(found) == line.tgt.barcodes, f"barcodes {sorted(found)}")
    for number, barcode in enumerate(line.tgt.barcodes):
        want(found[barcode] == SLOT + number, f"{barcode} is in element {found[barcode]}")


def check(report: Report, work: Path) -> None:
    """All checks with tgt."""
    reason = why_not()
    if reason:
        report.skip("tgt: the pair with a library over iSCSI", reason)
        return
    line = None
    try:
        with report.check("tgt: discover, with CHAP in both directions"):
            line = Line(work)
            line.start(line.discover() + 'verify = "readback"\n')
        if line and line.pair:
            with report.check("tgt: a copy to a library over iSCSI, read back and compared"):
                copy_and_compare(line)
            with report.check("tgt: the copies were read back and compared"):
                proven(line)
            with report.check("tgt: the inventory follows its moves"):
                back_in_their_slots(line)
        else:
            report.skip("tgt: the pair with a library over iSCSI", "it was not set up")
    finally:
        if line:
            line.stop()


def vectors_program() -> Path:
    """The program that compares a device with the list of vectors; built beside twinreel."""
    return Path(servers.program()).parent / "examples" / "vectors"


def check_vectors(report: Report, work: Path) -> None:
    """The list of SCSI vectors, and the differences of tgt that are known."""
    program = vectors_program()
    reason = why_not() or ("" if program.exists() else f"{program.name} is not built")
    if reason:
        report.skip("tgt: the vectors", reason)
        return
    library = Tgt(work, chap=False)
    try:
        with report.check("tgt: the vectors"):
            way = f"iscsi://{library.portal}/{TARGET}"
            done = subprocess.run(
                [program, "tgt", f"{way}/{CHANGER_LUN + 1}", f"{way}/{CHANGER_LUN}"],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
            want(done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace"))
    finally:
        library.stop()
