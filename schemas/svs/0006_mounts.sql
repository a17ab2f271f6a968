-- Version 6: the mount queue, for people, and media that are outside of their libraries.

CREATE TABLE mounts (
    ticket   INTEGER PRIMARY KEY,
    job      TEXT,
    who      TEXT NOT NULL,
    -- Separated by ", ": `ptl0/PTA001L8`.
    tapes    TEXT NOT NULL,
    priority TEXT NOT NULL CHECK
        (priority IN ('restore', 'copy', 'policy', 'migration', 'verify')),
    -- Milliseconds since 1970.
    since    INTEGER NOT NULL,
    -- The smaller the sooner.
    rank     INTEGER NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('waiting', 'mounted')),
    -- Those that it has, separated by ", ": `ptl0/drive0`.
    drives   TEXT NOT NULL DEFAULT '',
    -- What it waits for.
    reason   TEXT
) STRICT;

-- A medium that was taken out of its library by a command, until it is seen in a slot again.
CREATE TABLE outside (
    medium TEXT PRIMARY KEY CHECK (medium GLOB 'lib ?* tape ?*'),
    -- exported: it lies in the import/export station. off site: it was taken from there.
    place  TEXT NOT NULL CHECK (place IN ('exported', 'off site')),
    since  TEXT NOT NULL
) STRICT;
