-- The raw archive: every event that was counted, once, and how it was counted. Empty unless nodes serve with --archive. A row
-- may stand there as often as its write was tried; (partition, position, number) tells which event it is. With it
-- ClickHouse can make every window anew by itself, which is what `highwater verify --deep` does.
CREATE TABLE IF NOT EXISTS usage_events (
  workspace   LowCardinality(String),
  mode        LowCardinality(String),
  epoch       UInt64,
  account     String,
  metric      LowCardinality(String),
  grp         String COMMENT 'the group that it was counted in beside the total; empty where it was in none',
  timestamp   DateTime64(3, 'UTC') COMMENT 'when it happened',
  accepted_at DateTime64(3, 'UTC'),
  recorded_at DateTime64(3, 'UTC') COMMENT 'when the log took it in',
  clock       DateTime64(3, 'UTC') COMMENT 'the clock of the fold when it was counted',
  value       Int128 COMMENT 'a count of 10^-9',
  source      String,
  id          String,
  project     String,
  dimensions  String COMMENT 'a JSON object; empty where there are none' CODEC(ZSTD(3)),
  backfill    Bool,
  late        Bool COMMENT 'its window had closed',
  partition   UInt32,
  position    UInt64 COMMENT 'the record that holds it',
  number      UInt32 COMMENT 'its place in that record'
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (workspace, mode, epoch, account, metric, timestamp, partition, position, number)
COMMENT 'Every event that was counted';

-- Behind which record everything that was counted is in usage_events; absent where the last writer did not archive.
ALTER TABLE positions ADD COLUMN IF NOT EXISTS archived_from Nullable(UInt64)
