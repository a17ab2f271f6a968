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
