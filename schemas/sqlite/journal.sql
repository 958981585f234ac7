-- The journal: one row a record, never changed, never deleted but by retention.
CREATE TABLE IF NOT EXISTS meta (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS records (
  log         INTEGER NOT NULL, -- 0 is the control log, 1 + n the log of partition n
  position    INTEGER NOT NULL, -- from 1, without gaps
  recorded_at INTEGER NOT NULL, -- milliseconds since 1970, never decreasing
  crc         INTEGER NOT NULL, -- CRC-32 over the log's previous crc, position, recorded_at and payload
  payload     BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX IF NOT EXISTS records_by_position ON records (log, position);
