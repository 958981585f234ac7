-- What became of platform events at the endpoints that people subscribe with. The control log's rows stand under the
-- partition number 4294967295.
CREATE TABLE IF NOT EXISTS webhook_events (
  workspace LowCardinality(String),
  mode      LowCardinality(String),
  id        String,
  at        DateTime64(3, 'UTC'),
  position  UInt64,
  body      String COMMENT 'all of it, as JSON' CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(position)
ORDER BY (workspace, mode, id)
COMMENT 'Events that some endpoint wanted';

CREATE TABLE IF NOT EXISTS webhook_deliveries (
  workspace  LowCardinality(String),
  mode       LowCardinality(String),
  webhook    String,
  created_at DateTime64(3, 'UTC') COMMENT 'when it was first owed; a pair has one such time',
  event      String,
  kind       LowCardinality(String),
  log        UInt32 COMMENT 'the partition whose log owes it; 4294967295 for the control log',
  status     LowCardinality(String) COMMENT 'pending, succeeded, failed or dropped',
  attempts   UInt32,
  outcome    Nullable(String),
  next_at    Nullable(DateTime64(3, 'UTC')),
  at         DateTime64(3, 'UTC'),
  revision   UInt64,
  INDEX webhook_deliveries_by_event event TYPE bloom_filter GRANULARITY 1
) ENGINE = ReplacingMergeTree(revision)
ORDER BY (workspace, mode, webhook, created_at, event)
COMMENT 'Where events stand at each endpoint';

CREATE TABLE IF NOT EXISTS webhook_attempts (
  workspace LowCardinality(String),
  mode      LowCardinality(String),
  webhook   String,
  event     String,
  attempt   UInt32,
  at        DateTime64(3, 'UTC'),
  revision  UInt64,
  body      String COMMENT 'all of it, as JSON' CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(revision)
ORDER BY (workspace, mode, webhook, event, attempt)
COMMENT 'What came of each attempt to deliver';
