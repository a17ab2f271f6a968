"""A library over iSCSI that makes trouble under a copy: connections cut, bytes changed on the way, and tgt
killed and started again.

tgt tells no positions, so a copy whose answer is lost has to end failed, and say so: nobody can know
whether the last record is on the tape. What may never happen is a copy that is called done and is not
on the tape.
"""

import contextlib
import random
import socket
import threading
import time
from pathlib import Path

from ports import free_port
from report import Failed, Report, want
from tgt import PATIENCE, SLOT, Line, Tgt, why_not

SIZE = 8_000_000


class Wire:
    """Passes connections on to a port; once, behind so many bytes to that port or from it, it cuts them
    all, or changes a bit."""

    def __init__(self, to: int) -> None:
        self.to, self.port = to, free_port()
        self.lock, self.open, self.cuts, self.flips = threading.Lock(), [], 0, 0
        # Bytes until the trouble, whether they are those to the port, and whether a bit changes.
        self.left, self.outward, self.flip = None, True, False
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        """Until the listener is closed."""
        while True:
            try:
                ours, _ = self.listener.accept()
            except OSError:
                return
            try:
                theirs = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                ours.close()
                continue
            with self.lock:
                self.open += [ours, theirs]
            for source, sink, outward in [(ours, theirs, True), (theirs, ours, False)]:
                threading.Thread(target=self.pump, args=(source, sink, outward), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        """One direction."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if outward == self.outward and self.spent(len(data)):
                    if not self.flip:
                        self.cut()
                        return
                    self.flips += 1
                    data = data[:-1] + bytes([data[-1] ^ 0x10])
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def spent(self, count: int) -> bool:
        """Whether these bytes are the ones that do not arrive."""
        with self.lock:
            if self.left is None:
                return False
            self.left -= count
            if self.left > 0:
                return False
            self.left = None
            return True

    def cut(self) -> None:
        """Ends every connection."""
        with self.lock:
            gone, self.open, self.cuts = self.open, [], self.cuts + 1
        for end in gone:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut_behind(self, count: int) -> None:
        """Plans the next cut."""
        with self.lock:
            self.left, self.outward, self.flip = count, True, False

    def flip_behind(self, count: int, outward: bool) -> None:
        """Plans the next change of a bit."""
        with self.lock:
            self.left, self.outward, self.flip = count, outward, True

    def close(self) -> None:
        """Ends it."""
        self.listener.close()
        self.cut()


class Faulty(Line):
    """The line with a wire that can be cut between engine and library."""

    wire = None

    def begin(self) -> None:
        """Starts the pair, and makes a backup."""
        self.wire = Wire(self.tgt.port)
        self.start(self.discover().replace(f":{self.tgt.port}/", f":{self.wire.port}/"))
        self.data = random.Random(7).randbytes(SIZE)
        (self.work / "in").write_bytes(self.data)
        self.dma("backup", self.work / "in", "--target", "vtl0:VTA001L8")

    def stop(self) -> None:
        """Ends everything."""
        super().stop()
        if self.wire:
            self.wire.close()

    def copy(self, barcode: str) -> str:
        """Copies the backup. What was said of it if it failed, else empty."""
        try:
            self.dma("copy", "--source", "vtl0:VTA001L8", "--target", f"dr-ptl0:{barcode}")
        except Failed as failed:
            return str(failed)
        return ""

    def holds(self, barcode: str) -> None:
        """Fails unless the tape holds the backup."""
        out = self.work / "out"
        self.dma("restore", out, "--source", f"dr-ptl0:{barcode}")
        want(out.read_bytes() == self.data, f"{barcode} holds something else than the backup")

    def copied(self, barcode: str) -> None:
        """Copies until the library answers again, and reads back."""
        deadline = time.monotonic() + PATIENCE
        while why := self.copy(barcode):
            want(time.monotonic() < deadline, f"copies fail for good: {why}")
            time.sleep(0.5)
        self.holds(barcode)


def cuts(line: Faulty) -> None:
    """The connections are cut at several places of a copy. It is done and on tape, or has failed."""
    failed = 0
    for number, share in enumerate([0.01, 0.3, 0.6, 0.95]):
        barcode = line.tgt.barcodes[number % len(line.tgt.barcodes)]
        line.wire.cut_behind(int(SIZE * share))
        why = line.copy(barcode)
        want(line.wire.cuts == number + 1, f"the copy was over before the wire was cut: {why}")
        if why:
            failed += 1
            line.copied(barcode)
        else:
            line.holds(barcode)
    want(failed > 0, "no cut was noticed")


def flips(line: Faulty) -> None:
    """A bit changes on the way there, and on the way back. The digests tell; the copy is done and on tape,
    or has failed."""
    for number, (behind, outward) in enumerate([(SIZE // 3, True), (SIZE // 2, True), (500, False)]):
        barcode = line.tgt.barcodes[number]
        line.wire.flip_behind(behind, outward)
        why = line.copy(barcode)
        want(line.wire.flips == number + 1, f"the copy was over before a bit was changed: {why}")
        if why:
            line.copied(barcode)
        else:
            line.holds(barcode)


def restart(line: Faulty) -> None:
    """tgtd is killed in the middle of a copy and comes back with every cartridge in its slot."""
    barcode = line.tgt.barcodes[0]
    line.wire.cut_behind(SIZE // 2)
    killer = threading.Thread(target=kill_when_cut, args=(line.tgt, line.wire, line.wire.cuts))
    killer.start()
    why = line.copy(barcode)
    killer.join()
    want(why, "a copy is done although the library went away under it")
    line.tgt.start()
    line.copied(barcode)
    deadline = time.monotonic() + PATIENCE
    while (found := line.inventory()) != {b: SLOT + n for n, b in enumerate(line.tgt.barcodes)}:
        want(time.monotonic() < deadline, f"the inventory stays {found}")
        time.sleep(0.3)


def kill_when_cut(tgt: Tgt, wire: Wire, before: int) -> None:
    """Kills tgtd as soon as the wire is cut."""
    deadline = time.monotonic() + PATIENCE
    while wire.cuts == before and time.monotonic() < deadline:
        time.sleep(0.005)
    tgt.kill()


def check(report: Report, work: Path) -> None:
    """All checks of a library that goes away."""
    if reason := why_not():
        report.skip("tgt: a library that goes away", reason)
        return
    line = Faulty(work)
    try:
        line.begin()
        with report.check("tgt: connections cut under a copy"):
            cuts(line)
        with report.check("tgt: bits changed under a copy, told by digests"):
            flips(line)
        with report.check("tgt: killed under a copy and started again"):
            restart(line)
    finally:
        line.stop()
