-- Version 5: how drives and cartridges of the physical libraries of this site are, by what the drives
-- say of themselves (TapeAlert and other log pages).

CREATE TABLE health (
    -- `ptl0/drive0` or `ptl0/PTA001L8`.
    subject       TEXT PRIMARY KEY,
    kind          TEXT NOT NULL CHECK (kind IN ('drive', 'cartridge')),
    -- clean: the drive wants a cleaning cartridge. down: it is not used. frozen: the cartridge is not
    -- written on. The latter two until somebody says otherwise.
    condition     TEXT NOT NULL CHECK (condition IN ('ok', 'clean', 'down', 'frozen')),
    -- Numbers of the TapeAlert flags raised last, separated by commas.
    alerts        TEXT NOT NULL DEFAULT '',
    loads         INTEGER,
    bytes_written INTEGER,
    bytes_read    INTEGER,
    message       TEXT,
    updated       TEXT NOT NULL
) STRICT;
