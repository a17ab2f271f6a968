-- Version 3: the maps act. What a medium holds is counted, what each copy lacks is noted before a
-- write is answered, and each row says when it wants to be acted upon.

-- A medium that was written through this engine, or stands in a map.
CREATE TABLE media (
    medium     TEXT PRIMARY KEY CHECK
        (medium GLOB 'lib ?* tape ?*' OR medium GLOB 'wwpn ?* lun [0-9]*'),
    -- One more with each stretch of writing; what was read under one version is one content.
    version    INTEGER NOT NULL DEFAULT 0,
    -- Early warning or the end of the medium was met since it was last written from its beginning.
    full       INTEGER NOT NULL DEFAULT 0 CHECK (full IN (0, 1)),
    -- Written in all: records and their bytes.
    records    INTEGER NOT NULL DEFAULT 0,
    bytes      INTEGER NOT NULL DEFAULT 0,
    -- Milliseconds since 1970.
    last_write INTEGER,
    -- Where its content went by migration; this medium is free once `freed` is set.
    moved_to   TEXT,
    freed      TEXT
) STRICT;

-- Media that rows may take as targets.
CREATE TABLE media_pools (
    medium TEXT PRIMARY KEY CHECK (medium GLOB 'lib ?* tape ?*'),
    pool   TEXT NOT NULL
) STRICT;
CREATE INDEX media_pools_pool ON media_pools (pool, medium);

ALTER TABLE copy_map RENAME TO copy_map_v2;
CREATE TABLE copy_map (
    source_medium TEXT NOT NULL CHECK
        (source_medium GLOB 'lib ?* tape ?*' OR source_medium GLOB 'wwpn ?* lun [0-9]*'),
    target_medium TEXT NOT NULL CHECK
        (target_medium GLOB 'lib ?* tape ?*' OR target_medium GLOB 'wwpn ?* lun [0-9]*'),
    policy        TEXT NOT NULL CHECK
        (policy IN ('always', 'when full', 'incremental', 'deferred')),
    status        TEXT NOT NULL DEFAULT 'pending' CHECK
        (status IN ('pending', 'scheduled', 'in progress', 'done', 'failed')),
    -- When, for deferred: at TIME, every DAYS HH:MM, within HH:MM-HH:MM.
    schedule      TEXT,
    -- Other triggers than the dismount: so many records or bytes written since the last copy.
    after_records INTEGER,
    after_bytes   INTEGER,
    -- Seconds that a dismount waits for the copy; that a write waits for its replication.
    wait          INTEGER NOT NULL DEFAULT 0,
    lock_source   INTEGER NOT NULL DEFAULT 0,
    verify        TEXT NOT NULL DEFAULT 'position' CHECK
        (verify IN ('none', 'position', 'readback')),
    -- Asked for by a command: due now, whatever the policy says.
    asked         INTEGER NOT NULL DEFAULT 0 CHECK (asked IN (0, 1)),
    -- So many objects at the beginning of both are the same; NULL: all of them, it is a current
    -- copy.
    changed_from  INTEGER DEFAULT 0,
    -- Since when it lacks something, in milliseconds since 1970.
    changed_at    INTEGER,
    -- What had been written to the source in all when it was last copied.
    seen_records  INTEGER NOT NULL DEFAULT 0,
    seen_bytes    INTEGER NOT NULL DEFAULT 0,
    -- The last job; while it is under way, what was written to the source since it began.
    job           TEXT,
    touched_from  INTEGER,
    proven        TEXT NOT NULL DEFAULT 'none' CHECK
        (proven IN ('none', 'position', 'readback')),
    copied        TEXT,
    attempts      INTEGER NOT NULL DEFAULT 0,
    next_try      INTEGER,
    message       TEXT,
    created       TEXT,
    PRIMARY KEY (source_medium, target_medium)
) STRICT;
INSERT INTO copy_map (source_medium, target_medium, policy, status)
    SELECT source_medium, target_medium, policy, 'pending' FROM copy_map_v2;
DROP TABLE copy_map_v2;
CREATE INDEX copy_map_target ON copy_map (target_medium);

ALTER TABLE migration_map RENAME TO migration_map_v2;
CREATE TABLE migration_map (
    source_medium    TEXT PRIMARY KEY CHECK
        (source_medium GLOB 'lib ?* tape ?*' OR source_medium GLOB 'wwpn ?* lun [0-9]*'),
    migration_medium TEXT NOT NULL CHECK
        (migration_medium GLOB 'lib ?* tape ?*' OR migration_medium GLOB 'wwpn ?* lun [0-9]*'),
    policy           TEXT NOT NULL CHECK
        (policy IN ('always', 'when full', 'incremental', 'deferred', 'after days')),
    status           TEXT NOT NULL DEFAULT 'pending' CHECK
        (status IN ('pending', 'scheduled', 'in progress', 'done', 'failed')),
    -- Of `after days`: since the last write.
    days             INTEGER,
    schedule         TEXT,
    verify           TEXT NOT NULL DEFAULT 'readback' CHECK
        (verify IN ('none', 'position', 'readback')),
    asked            INTEGER NOT NULL DEFAULT 0 CHECK (asked IN (0, 1)),
    job              TEXT,
    job_version      INTEGER,
    proven           TEXT NOT NULL DEFAULT 'none' CHECK
        (proven IN ('none', 'position', 'readback')),
    moved            TEXT,
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_try         INTEGER,
    message          TEXT,
    created          TEXT
) STRICT;
INSERT INTO migration_map (source_medium, migration_medium, policy, status)
    SELECT source_medium, migration_medium, policy, 'pending' FROM migration_map_v2;
DROP TABLE migration_map_v2;
CREATE INDEX migration_map_target ON migration_map (migration_medium);

-- A backend that no frontend stands before is kept for copies and migrations: its row has none.
ALTER TABLE frontend_backend_map RENAME TO frontend_backend_map_v2;
CREATE TABLE frontend_backend_map (
    backend_device             TEXT NOT NULL CHECK
        (backend_device GLOB 'lib ?* drive ?*' OR backend_device GLOB 'wwpn ?* lun [0-9]*'),
    frontend_device            TEXT UNIQUE CHECK
        (frontend_device GLOB 'lib ?* drive ?*' OR frontend_device GLOB 'wwpn ?* lun [0-9]*'),
    -- The device that is used in the backend's place, for as long as it is.
    alternative_backend_device TEXT CHECK
        (alternative_backend_device GLOB 'lib ?* drive ?*'
         OR alternative_backend_device GLOB 'wwpn ?* lun [0-9]*'),
    -- Ranges, separated by ", ": `lib SERIAL tape A12345-A23456`.
    backend_tapes              TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO frontend_backend_map SELECT * FROM frontend_backend_map_v2;
DROP TABLE frontend_backend_map_v2;
CREATE UNIQUE INDEX frontend_backend_map_unmapped ON frontend_backend_map (backend_device)
    WHERE frontend_device IS NULL;
