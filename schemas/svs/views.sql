-- The views that people and programs may rely on. They hold no data, so they are made anew
-- whenever the schema moves.

DROP VIEW IF EXISTS job_status;
CREATE VIEW job_status AS
SELECT
    id, kind, source, target, state,
    CASE
        WHEN state = 'done' THEN 100.0
        WHEN bytes_total IS NULL THEN NULL
        WHEN bytes_total = 0 THEN 0.0
        ELSE round(min(100.0, 100.0 * bytes / bytes_total), 1)
    END AS percent,
    bytes,
    -- Bytes for each second in progress: waiting and paused time does not count.
    CASE WHEN active > 0 THEN CAST(round(bytes * 1000.0 / active) AS INTEGER) END AS rate,
    started, ended, requested_by, path, path_reason, verified, message
FROM (
    SELECT *, active_ms + coalesce(
        CAST(round((julianday(updated) - julianday(active_since)) * 86400000) AS INTEGER), 0
    ) AS active
    FROM jobs
)
ORDER BY id;

DROP VIEW IF EXISTS cartridge_status;
CREATE VIEW cartridge_status AS
SELECT
    c.site, c.library, c.barcode, c.id AS cartridge, c.element, c.capacity, c.write_protected,
    g.id AS generation, g.number, g.state, g.records, g.filemarks,
    g.logical_bytes, g.unique_bytes,
    r.site AS peer, r.state AS replication, r.bytes_wire AS wire_bytes
FROM cartridges c
LEFT JOIN generations g
    ON g.cartridge = c.id
    AND g.number = (SELECT max(number) FROM generations WHERE cartridge = c.id)
LEFT JOIN replication r ON r.generation = g.id
ORDER BY c.site, c.library, c.barcode, r.site;

-- The three maps as people look at them. `current` says whether the target holds what the source
-- holds; `job_state` and `percent` are those of the last job.
DROP VIEW IF EXISTS frontend_backend_status;
CREATE VIEW frontend_backend_status AS
SELECT
    backend_device, frontend_device, alternative_backend_device, backend_tapes,
    CASE
        WHEN frontend_device IS NULL THEN 'kept for copies and migrations'
        WHEN alternative_backend_device IS NOT NULL THEN 'on its alternative'
        ELSE 'mapped'
    END AS state
FROM frontend_backend_map
ORDER BY frontend_device, backend_device;

DROP VIEW IF EXISTS copy_status;
CREATE VIEW copy_status AS
SELECT
    m.source_medium, m.target_medium, m.policy, m.status,
    m.changed_from IS NULL AS current,
    m.changed_from, m.schedule, m.verify, m.proven, m.copied,
    m.job, j.state AS job_state, j.percent, m.attempts, m.message,
    -- Where the target is, if it is not in its library.
    o.place AS target_place
FROM copy_map m
LEFT JOIN job_status j ON j.id = m.job
LEFT JOIN outside o ON o.medium = m.target_medium
ORDER BY m.source_medium, m.target_medium;

DROP VIEW IF EXISTS migration_status;
CREATE VIEW migration_status AS
SELECT
    m.source_medium, m.migration_medium, m.policy, m.days, m.schedule, m.status,
    m.verify, m.proven, m.moved, f.freed,
    m.job, j.state AS job_state, j.percent, m.attempts, m.message,
    o.place AS migration_place
FROM migration_map m
LEFT JOIN job_status j ON j.id = m.job
LEFT JOIN media f ON f.medium = m.source_medium
LEFT JOIN outside o ON o.medium = m.migration_medium
ORDER BY m.source_medium;

-- Who has drives, and who waits for them, in their order.
DROP VIEW IF EXISTS mount_queue;
CREATE VIEW mount_queue AS
SELECT * FROM mounts ORDER BY state, rank, ticket;

DROP VIEW IF EXISTS audit;
CREATE VIEW audit AS
SELECT at, text, subject FROM events WHERE kind = 'audit' ORDER BY id;
