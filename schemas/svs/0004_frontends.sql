-- Version 4: a library may be a frontend: its tapes and drives are those of other libraries.

-- Its rows are kept; `devices` goes first and comes back last, for it refers to `libraries`.
CREATE TEMP TABLE devices_v3 AS SELECT * FROM devices;
DROP TABLE devices;
CREATE TEMP TABLE libraries_v3 AS SELECT * FROM libraries;
DROP TABLE libraries;

CREATE TABLE libraries (
    site    TEXT NOT NULL,
    name    TEXT NOT NULL,
    serial  TEXT NOT NULL,
    role    TEXT NOT NULL CHECK (role IN ('virtual', 'physical', 'ghost', 'frontend')),
    backend TEXT NOT NULL,
    state   TEXT NOT NULL,
    updated TEXT NOT NULL,
    PRIMARY KEY (site, name)
) STRICT;
INSERT INTO libraries SELECT * FROM libraries_v3;
DROP TABLE libraries_v3;

CREATE TABLE devices (
    site     TEXT NOT NULL,
    library  TEXT NOT NULL,
    device   TEXT NOT NULL,
    serial   TEXT NOT NULL,
    vendor   TEXT NOT NULL,
    product  TEXT NOT NULL,
    revision TEXT NOT NULL,
    state    TEXT NOT NULL,
    updated  TEXT NOT NULL,
    PRIMARY KEY (site, library, device),
    FOREIGN KEY (site, library) REFERENCES libraries (site, name) ON DELETE CASCADE
) STRICT;
INSERT INTO devices SELECT * FROM devices_v3;
DROP TABLE devices_v3;
