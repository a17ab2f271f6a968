-- Version 2: what the remote engine keeps of open ghost devices, so that an operation whose answer
-- was lost is answered again and never executed again. One row for each lease, written before an
-- answer leaves.

CREATE TABLE lease_rows (
    -- ULID, made by the engine that holds the device.
    id      TEXT PRIMARY KEY,
    -- Holder, device, last number and its answer, in the encoding of the link (schemas/link.proto,
    -- LeaseRow).
    row     BLOB NOT NULL,
    updated TEXT NOT NULL
) STRICT;
