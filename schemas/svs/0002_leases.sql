-- Version 2: what the remote engine remembers of open ghost devices, so that an operation whose
-- answer was lost is answered again and never executed again.

CREATE TABLE leases (
    id          TEXT PRIMARY KEY,
    -- Who holds it, and how often it was taken up again; an older epoch is refused.
    peer        TEXT NOT NULL,
    epoch       INTEGER NOT NULL,
    device      TEXT NOT NULL,
    job         TEXT,
    -- The run of this engine that served it last: another one must prove the position first.
    engine      TEXT NOT NULL,
    last_number INTEGER NOT NULL DEFAULT 0,
    -- The logical object that the medium stands at after operation last_number; NULL if unknown.
    position    INTEGER,
    opened      TEXT NOT NULL,
    renewed     TEXT NOT NULL,
    closed      TEXT,
    cause       TEXT
) STRICT;

-- One open lease for each device.
CREATE UNIQUE INDEX leases_open ON leases (device) WHERE closed IS NULL;

CREATE TABLE operations (
    lease    TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
    number   INTEGER NOT NULL,
    result   BLOB NOT NULL,
    at       TEXT NOT NULL,
    PRIMARY KEY (lease, number)
) STRICT, WITHOUT ROWID;
