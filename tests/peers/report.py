"""Counting checks, and what they share."""

import contextlib
import os
import random
import sys
import time
import traceback
from pathlib import Path


class Failed(Exception):
    """A check saw something else than it should; the text says what."""


def want(condition: object, what: str) -> None:
    """Fails the check with `what` unless the condition holds."""
    if not condition:
        raise Failed(what)


class Report:
    """Runs checks one by one, says how each ended, and counts."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0

    @contextlib.contextmanager
    def check(self, name: str):
        """`with report.check("a thing"):` counts what happens inside; an error ends the check only."""
        begin = time.monotonic()
        try:
            yield
        except Exception as error:  # a peer can fail in any way; the run goes on
            self.failed += 1
            print(f"FAILED: {name}: {error}", flush=True)
            if not isinstance(error, Failed):
                traceback.print_exc(file=sys.stdout)
        else:
            self.passed += 1
            print(f"ok: {name} ({time.monotonic() - begin:.1f} s)", flush=True)

    def skip(self, name: str, why: str) -> None:
        """Says that something was not checked."""
        self.skipped += 1
        print(f"SKIPPED: {name} ({why})", flush=True)

    def finish(self) -> int:
        """The last line, and the exit code."""
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return 1 if self.failed else 0


def seed() -> int:
    """The seed of the data, from TWINREEL_SEED if set."""
    return int(os.environ.get("TWINREEL_SEED", "20260101"))


def make_tree(root: Path, size: int) -> None:
    """A directory tree of about `size` bytes with the things that trees have, the same each time."""
    rng = random.Random(seed())
    root.mkdir(parents=True)
    (root / "empty").touch()
    (root / "a directory with a long name and nothing in it").mkdir()
    (root / "link").symlink_to("text/0")
    (root / "text").mkdir()
    words = [rng.randbytes(rng.randrange(2, 9)).hex() for _ in range(500)]
    left, number = size, 0
    while left > 0:
        length = min(left, rng.choice([1, 511, 4096, 100_000, 300_000]))
        if number % 2 == 0:
            text = " ".join(rng.choice(words) for _ in range(length // 8 + 1))
            data = text.encode()[:length]
            (root / "text" / str(number)).write_bytes(data)
        else:
            (root / f"random{number}").write_bytes(rng.randbytes(length))
        left -= length
        number += 1
    (root / "random1").chmod(0o600)


def compare_trees(one: Path, other: Path) -> None:
    """Fails unless both trees hold the same names, kinds, permissions and bytes."""
    def describe(root: Path) -> dict:
        found = {}
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink():
                found[name] = ("link", os.readlink(path))
            elif path.is_dir():
                found[name] = ("directory", path.stat().st_mode)
            else:
                found[name] = ("file", path.stat().st_mode, path.read_bytes())
        return found

    left, right = describe(one), describe(other)
    want(left.keys() == right.keys(), f"names differ: {sorted(left.keys() ^ right.keys())[:5]}")
    differing = [name for name in left if left[name] != right[name]]
    want(not differing, f"contents differ: {differing[:5]}")
