#!/usr/bin/env python3
"""Checks what `twinreel demo --json` printed: one object with the keys that are promised, equal
digests, two copies done, and a second generation that cost less than the first."""

import json
import re
import sys

GENERATION = {"logical_bytes", "unique_bytes", "wan_bytes", "seconds"}
COPY = {"source", "target", "state", "bytes", "seconds"}


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        answer = json.load(file)
    missing = {"ok", "sha256_in", "sha256_out", "generations", "copies"} - answer.keys()
    assert not missing, f"missing keys: {missing}"
    assert answer["ok"] is True, "not ok"
    assert re.fullmatch("[0-9a-f]{64}", answer["sha256_in"]), answer["sha256_in"]
    assert answer["sha256_in"] == answer["sha256_out"], "what came out is not what went in"
    generations, copies = answer["generations"], answer["copies"]
    assert len(generations) == 2, f"{len(generations)} generations"
    assert all(GENERATION <= g.keys() for g in generations), generations
    assert generations[0]["logical_bytes"] >= 256_000_000, generations[0]
    assert generations[1]["wan_bytes"] * 4 < generations[0]["wan_bytes"], "nothing was saved"
    assert len(copies) >= 2, f"{len(copies)} copies"
    assert all(COPY <= c.keys() for c in copies), copies
    assert all(c["state"] == "done" for c in copies), copies
    assert len({c["target"] for c in copies}) >= 2, "one tape only"


if __name__ == "__main__":
    main()
