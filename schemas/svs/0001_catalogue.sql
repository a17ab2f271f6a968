-- Version 1 of the catalogue. Times are RFC 3339 in UTC with milliseconds, identifiers are ULIDs,
-- sizes are bytes. A CHECK stands wherever a person may write with `sqlite3`.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row for each piece of long work, written before the work starts, the same id at both sites.
CREATE TABLE jobs (
    id             TEXT PRIMARY KEY,
    kind           TEXT NOT NULL CHECK (kind IN
                     ('copy', 'replication', 'migration', 'verify', 'collect', 'scrub')),
    -- Who may resume it: this engine, a DMA's session, or the engine at the other site.
    owner          TEXT NOT NULL CHECK (owner IN ('engine', 'dma', 'peer')),
    source         TEXT NOT NULL,
    target         TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN
                     ('pending', 'scheduled', 'waiting_replication', 'waiting_drive',
                      'in_progress', 'paused_eom', 'done', 'failed', 'cancelled')),
    bytes          INTEGER NOT NULL DEFAULT 0,
    bytes_total    INTEGER,
    -- What the target has proven to hold: counted at the last successful flush.
    flushed_object INTEGER,
    flushed_bytes  INTEGER,
    cartridge      TEXT,
    generation     TEXT,
    requested_by   TEXT NOT NULL,
    path           TEXT CHECK (path IN ('offloaded', 'moved')),
    path_reason    TEXT,
    verified       TEXT NOT NULL DEFAULT 'none'
                     CHECK (verified IN ('none', 'position', 'readback')),
    message        TEXT,
    -- What the owner needs to go on after a restart, in its own words (JSON).
    resume         TEXT,
    created        TEXT NOT NULL,
    started        TEXT,
    updated        TEXT NOT NULL,
    ended          TEXT,
    -- Time in progress: finished stretches in milliseconds, and the start of the running one.
    active_ms      INTEGER NOT NULL DEFAULT 0,
    active_since   TEXT
) STRICT;
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_generation ON jobs (generation) WHERE generation IS NOT NULL;

CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         TEXT NOT NULL,
    kind       TEXT NOT NULL,
    severity   TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'error')),
    message_id TEXT NOT NULL,
    text       TEXT NOT NULL,
    subject    TEXT
) STRICT;
CREATE INDEX events_subject ON events (subject) WHERE subject IS NOT NULL;

-- Cartridges in the store of this engine: its own, and at the remote the replicas of a peer's.
CREATE TABLE cartridges (
    id              TEXT PRIMARY KEY,
    site            TEXT NOT NULL,
    library         TEXT NOT NULL,
    barcode         TEXT NOT NULL,
    capacity        INTEGER NOT NULL,
    write_protected INTEGER NOT NULL DEFAULT 0 CHECK (write_protected IN (0, 1)),
    -- Element address where it is, and the slot it came from; NULL while outside the library.
    element         INTEGER,
    home            INTEGER,
    created         TEXT NOT NULL,
    updated         TEXT NOT NULL,
    UNIQUE (site, library, barcode)
) STRICT;

-- What the store holds of a cartridge. The store commits first; the row follows.
CREATE TABLE generations (
    id            TEXT PRIMARY KEY,
    cartridge     TEXT NOT NULL REFERENCES cartridges (id) ON DELETE CASCADE,
    number        INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('open', 'receiving', 'sealed', 'missing')),
    records       INTEGER NOT NULL DEFAULT 0,
    filemarks     INTEGER NOT NULL DEFAULT 0,
    logical_bytes INTEGER NOT NULL DEFAULT 0,
    unique_bytes  INTEGER NOT NULL DEFAULT 0,
    created       TEXT NOT NULL,
    sealed        TEXT,
    UNIQUE (cartridge, number)
) STRICT;

-- Where a generation is on its way to (or, at the receiver, from): one row for each peer site.
CREATE TABLE replication (
    generation    TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    site          TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('pending', 'in_progress', 'done', 'failed')),
    job           TEXT,
    bytes_logical INTEGER NOT NULL DEFAULT 0,
    bytes_unique  INTEGER NOT NULL DEFAULT 0,
    bytes_wire    INTEGER NOT NULL DEFAULT 0,
    message       TEXT,
    started       TEXT,
    updated       TEXT NOT NULL,
    ended         TEXT,
    PRIMARY KEY (generation, site)
) STRICT;

CREATE TABLE libraries (
    site    TEXT NOT NULL,
    name    TEXT NOT NULL,
    serial  TEXT NOT NULL,
    role    TEXT NOT NULL CHECK (role IN ('virtual', 'physical', 'ghost')),
    backend TEXT NOT NULL,
    state   TEXT NOT NULL,
    updated TEXT NOT NULL,
    PRIMARY KEY (site, name)
) STRICT;

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

-- The last report of a library as JSON, so that a ghost is listed before its site is reached.
CREATE TABLE inventory_reports (
    site    TEXT NOT NULL,
    library TEXT NOT NULL,
    at      TEXT NOT NULL,
    report  TEXT NOT NULL,
    PRIMARY KEY (site, library)
) STRICT;

-- The three maps. A device is `lib SERIAL drive SERIAL` or `wwpn W lun N`, a medium is
-- `lib SERIAL tape VOLSER` or the same disk form; backend_tapes lists media, separated by ", ".
CREATE TABLE frontend_backend_map (
    backend_device             TEXT NOT NULL CHECK
        (backend_device GLOB 'lib ?* drive ?*' OR backend_device GLOB 'wwpn ?* lun [0-9]*'),
    frontend_device            TEXT PRIMARY KEY CHECK
        (frontend_device GLOB 'lib ?* drive ?*' OR frontend_device GLOB 'wwpn ?* lun [0-9]*'),
    alternative_backend_device TEXT CHECK
        (alternative_backend_device GLOB 'lib ?* drive ?*'
         OR alternative_backend_device GLOB 'wwpn ?* lun [0-9]*'),
    backend_tapes              TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE copy_map (
    source_medium TEXT NOT NULL CHECK
        (source_medium GLOB 'lib ?* tape ?*' OR source_medium GLOB 'wwpn ?* lun [0-9]*'),
    target_medium TEXT NOT NULL CHECK
        (target_medium GLOB 'lib ?* tape ?*' OR target_medium GLOB 'wwpn ?* lun [0-9]*'),
    policy        TEXT NOT NULL CHECK
        (policy IN ('always', 'when full', 'incremental', 'deferred')),
    status        TEXT NOT NULL DEFAULT 'pending' CHECK
        (status IN ('pending', 'scheduled', 'in progress', 'done')),
    PRIMARY KEY (source_medium, target_medium)
) STRICT;

CREATE TABLE migration_map (
    source_medium    TEXT PRIMARY KEY CHECK
        (source_medium GLOB 'lib ?* tape ?*' OR source_medium GLOB 'wwpn ?* lun [0-9]*'),
    migration_medium TEXT NOT NULL CHECK
        (migration_medium GLOB 'lib ?* tape ?*' OR migration_medium GLOB 'wwpn ?* lun [0-9]*'),
    policy           TEXT NOT NULL CHECK
        (policy IN ('always', 'when full', 'incremental', 'deferred')),
    status           TEXT NOT NULL DEFAULT 'pending' CHECK
        (status IN ('pending', 'scheduled', 'in progress', 'done'))
) STRICT;
