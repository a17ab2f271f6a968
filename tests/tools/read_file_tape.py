#!/usr/bin/env python3
"""Reads a cartridge file of the embedded library, with nothing but the standard library and
docs/formats/file-library.md. Shares no code with the program that writes it.

    read_file_tape.py FILE                  a line for each object, "record LENGTH SHA256" or
                                            "filemark"
    read_file_tape.py FILE --json           the same with the header, as one JSON object
    read_file_tape.py FILE --extract N OUT  also writes the records of tape file N (from 0) to OUT
    read_file_tape.py FILE --key KEYFILE    decrypts what the drive encrypted with this key; takes
                                            the program openssl. Without it such a record is a
                                            line "encrypted LENGTH NAME-OF-THE-KEY"

Exit status: 0 all is sound, 1 a checksum or the chain is wrong, 2 not a cartridge file or wrong
use. Bytes behind the end of data that an interrupted write left are told on standard error; that
is not an error, since they were never flushed.
"""

import argparse
import functools
import hashlib
import json
import struct
import subprocess
import sys

MAGIC = b"TWRLTAPE"
VERSIONS = (1, 2)
SLOT = 64 * 1024
DATA = 2 * SLOT
HEAD = 20
TAIL = 4
RECORD_MAX = 8 * 1024 * 1024
SEAL = 64
MAC = 16

POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected
LANES = 4096


def _byte_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


TABLE = _byte_table()
PLANES = [bytes(value >> 8 * plane & 255 for value in TABLE) for plane in range(4)]


def _apply(matrix, vector):
    """A 32 by 32 matrix over GF(2), as 32 columns, times a vector."""
    result = 0
    for bit in range(32):
        if vector >> bit & 1:
            result ^= matrix[bit]
    return result


@functools.lru_cache(maxsize=4096)
def _zeros(count):
    """The matrix that feeds `count` zero bytes to a CRC register."""
    if count == 1:
        one = [1 << bit for bit in range(32)]
        return [value >> 8 ^ TABLE[value & 255] for value in one]
    half = _zeros(count // 2)
    double = [_apply(half, column) for column in half]
    return [_apply(_zeros(1), column) for column in double] if count & 1 else double


@functools.lru_cache(maxsize=4096)
def _zeros_tables(count):
    """The same as translation tables: [byte of the input][byte of the output]."""
    matrix = _zeros(count)
    images = [[_apply(matrix, value << 8 * i) for value in range(256)] for i in range(4)]
    return [[bytes(v >> 8 * o & 255 for v in images[i]) for o in range(4)] for i in range(4)]


def _xor(*parts):
    total = 0
    for part in parts:
        total ^= int.from_bytes(part, "little")
    return total.to_bytes(len(parts[0]), "little")


def crc32c(data):
    """CRC-32C. Long data are cut into lanes that advance together, a byte of each at a time, by
    operations on whole byte strings: a loop over single bytes takes minutes for a tape."""
    if len(data) < LANES:
        register = 0xFFFFFFFF
        for byte in data:
            register = register >> 8 ^ TABLE[register & 255 ^ byte]
        return register ^ 0xFFFFFFFF
    steps = -(-len(data) // LANES)
    # A register of ones is the same as inverting the first four bytes; zeros in front do nothing
    # to a register of zeros.
    first = bytes(byte ^ 255 for byte in data[:4])
    data = bytes(steps * LANES - len(data)) + first + bytes(data[4:])
    planes = [bytes(LANES)] * 4
    for step in range(steps):
        index = _xor(planes[0], data[step::steps])
        moved = [index.translate(plane) for plane in PLANES]
        planes = [_xor(planes[i + 1], moved[i]) for i in range(3)] + [moved[3]]
    length = steps
    while len(planes[0]) > 1:
        tables = _zeros_tables(length)
        left = [plane[0::2] for plane in planes]
        right = [plane[1::2] for plane in planes]
        planes = [
            _xor(right[o], *(left[i].translate(tables[i][o]) for i in range(4))) for o in range(4)
        ]
        length *= 2
    return int.from_bytes(b"".join(planes), "little") ^ 0xFFFFFFFF


class NotATape(Exception):
    pass


class Damaged(Exception):
    pass


def read_slot(slot):
    """(sequence, header) of a header slot, or None."""
    if slot[:8] != MAGIC or len(slot) < 32:
        return None
    version, length, sequence, checksum = struct.unpack_from("<IIQI", slot, 8)
    body = slot[32 : 32 + length]
    if version not in VERSIONS or len(body) != length or crc32c(slot[:24] + body) != checksum:
        return None
    return sequence, json.loads(body)


def read_header(file):
    file.seek(0)
    slots = [read_slot(file.read(SLOT)) for _ in range(2)]
    valid = [slot for slot in slots if slot is not None]
    if not valid:
        raise NotATape("no valid header")
    return max(valid, key=lambda slot: slot[0])[1]


def read_entry(file, offset, previous):
    """(kind, payload, chain value, size) of an entry, or the reason why not."""
    file.seek(offset)
    head = file.read(HEAD)
    if len(head) < HEAD:
        return "the head is cut off"
    kind, length, payload_crc, before, checksum = struct.unpack("<B3xIIII", head)
    if crc32c(head[:16]) != checksum:
        return "the head has a wrong checksum"
    if before != previous:
        return "the entry does not follow the one before"
    if head[1:4] != b"\0\0\0" or kind not in b"REF":
        return "the entry is of no known kind"
    if kind == ord("F") and (length or payload_crc):
        return "a filemark with contents"
    if kind == ord("R") and not 1 <= length <= RECORD_MAX:
        return "a record of an impossible length"
    if kind == ord("E") and not SEAL + MAC < length <= SEAL + MAC + RECORD_MAX:
        return "an encrypted record of an impossible length"
    payload = file.read(length)
    tail = file.read(TAIL)
    if len(payload) < length or len(tail) < TAIL:
        return "the entry is cut off"
    if struct.unpack("<I", tail)[0] != length:
        return "the trailing length is wrong"
    if kind != ord("F") and crc32c(payload) != payload_crc:
        return "the record has a wrong checksum"
    return chr(kind), payload, checksum, HEAD + length + TAIL


def objects(file, header):
    """Yields kind and payload of each entry. Raises Damaged."""
    file.seek(0, 2)
    size = file.tell()
    offset, previous = DATA, 0
    while offset < size:
        entry = read_entry(file, offset, previous)
        if isinstance(entry, str):
            if offset < header["durable"]:
                raise Damaged(f"byte {offset}: {entry}")
            print(f"{size - offset} bytes at the end were never flushed: {entry}", file=sys.stderr)
            return
        kind, payload, previous, length = entry
        yield kind, payload
        offset += length
    if offset < header["durable"]:
        raise Damaged(f"the file ends at byte {offset}, {header['durable']} bytes were flushed")


def key_name(payload):
    return payload[16 : 16 + payload[1]].decode("ascii", "replace")


def decrypt(payload, key):
    """GCM without its check (the checksum of the entry was right): CTR from 2 on."""
    counter = payload[4:16].hex() + "00000002"
    command = ["openssl", "enc", "-d", "-aes-256-ctr", "-nopad", "-K", key, "-iv", counter]
    data = payload[SEAL:-MAC]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def main():
    parser = argparse.ArgumentParser(description="Reads a cartridge file.")
    parser.add_argument("file")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--extract", nargs=2, metavar=("FILE_NUMBER", "OUT"))
    parser.add_argument("--key", metavar="KEYFILE")
    arguments = parser.parse_args()
    key = open(arguments.key).read().strip() if arguments.key else None
    wanted = int(arguments.extract[0]) if arguments.extract else None
    listed, damage, tape_file = [], None, 0
    out = open(arguments.extract[1], "wb") if arguments.extract else None
    with open(arguments.file, "rb") as file:
        try:
            header = read_header(file)
        except NotATape as error:
            print(f"{arguments.file}: {error}", file=sys.stderr)
            return 2
        try:
            for kind, payload in objects(file, header):
                if kind == "E" and key:
                    kind, payload = "R", decrypt(payload, key)
                if kind == "E":
                    length, name = len(payload) - SEAL - MAC, key_name(payload)
                    item = {"type": "encrypted", "length": length, "key": name}
                    text = f"encrypted {length} {name}"
                elif kind == "F":
                    tape_file += 1
                    item = {"type": "filemark"}
                    text = "filemark"
                else:
                    digest = hashlib.sha256(payload).hexdigest()
                    item = {"type": "record", "length": len(payload), "sha256": digest}
                    text = f"record {len(payload)} {digest}"
                    if tape_file == wanted:
                        out.write(payload)
                if arguments.json:
                    listed.append(item)
                else:
                    print(text)
        except Damaged as error:
            damage = str(error)
            print(f"{arguments.file}: {damage}", file=sys.stderr)
    if out:
        out.close()
    if arguments.json:
        keys = ("barcode", "capacity", "write_protected", "attributes")
        result = {key: header.get(key) for key in keys}
        print(json.dumps({**result, "objects": listed, "damage": damage}))
    return 1 if damage else 0


if __name__ == "__main__":
    sys.exit(main())
