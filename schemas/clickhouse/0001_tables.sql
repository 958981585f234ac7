-- The store: read models, made anew from the journal at any time. A key may stand in several rows, in any order and as
-- often as a write was tried; the row with the greatest revision (position) is the one that counts, and readers choose
-- it themselves: background merges only save space. Statements must bear being run again, by several nodes at once.
--
-- Amounts are counts of 10^-9. Ids are their texts, as the API writes them. Query usage_5m rather than usage_windows.

CREATE TABLE IF NOT EXISTS positions (
  partition  UInt32,
  position   UInt64 COMMENT 'everything of the partition up to this record is stored',
  clock      Int64 COMMENT 'the clock of the fold behind it, milliseconds since 1970',
  written_at DateTime DEFAULT now()
) ENGINE = ReplacingMergeTree(position) ORDER BY partition
COMMENT 'How far the rows of each partition reach; written after them';

CREATE TABLE IF NOT EXISTS usage_windows (
  workspace   LowCardinality(String),
  mode        LowCardinality(String) COMMENT 'live or sandbox',
  epoch       UInt64 COMMENT 'counts resets and deletions of the account; readers want the present one',
  account     String,
  metric      LowCardinality(String),
  grp         String COMMENT 'values of the dimensions that the metric is grouped by, as JSON; empty for the total',
  start       DateTime64(3, 'UTC') COMMENT 'the window is [start, start + 5 minutes)',
  part        UInt64 COMMENT 'the record that opened this part of the window',
  count       UInt64,
  sum         Int128,
  min         Int128,
  max         Int128,
  last        Int128,
  last_at     Int64 COMMENT 'the event time of last, milliseconds since 1970',
  late_events UInt64,
  revision    UInt64 COMMENT 'the last record that changed this part'
) ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(start)
ORDER BY (workspace, mode, epoch, account, metric, grp, start, part)
COMMENT 'Parts of 5-minute windows; query usage_5m instead';

CREATE TABLE IF NOT EXISTS accounts (
  workspace     LowCardinality(String),
  mode          LowCardinality(String),
  account       String,
  epoch         UInt64,
  first_seen_at DateTime64(3, 'UTC'),
  revision      UInt64
) ENGINE = ReplacingMergeTree(revision)
ORDER BY (workspace, mode, account, epoch)
COMMENT 'Accounts that have events';

CREATE TABLE IF NOT EXISTS alert_states (
  workspace    LowCardinality(String),
  mode         LowCardinality(String),
  alert        String,
  account      String,
  metric       LowCardinality(String) COMMENT 'empty where the rule names all of its metrics',
  epoch        UInt64,
  state        LowCardinality(String) COMMENT 'ok, pending, firing, no_data or inconclusive; empty when the instance is gone',
  since        DateTime64(3, 'UTC'),
  silenced     Bool,
  value        Nullable(Int128),
  evaluated_at DateTime64(3, 'UTC'),
  revision     UInt64
) ENGINE = ReplacingMergeTree(revision)
ORDER BY (workspace, mode, alert, account, metric)
COMMENT 'How alert instances stand';

-- An instance's transition of one number has one time, so the time may stand before the number.
CREATE TABLE IF NOT EXISTS alert_transitions (
  workspace LowCardinality(String),
  mode      LowCardinality(String),
  alert     String,
  at        DateTime64(3, 'UTC'),
  account   String,
  metric    LowCardinality(String),
  sequence  UInt64,
  position  UInt64,
  body      String COMMENT 'all of it, as JSON' CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(position)
ORDER BY (workspace, mode, alert, at, account, metric, sequence)
COMMENT 'What happened to alert instances';

CREATE TABLE IF NOT EXISTS notifications (
  workspace LowCardinality(String),
  mode      LowCardinality(String),
  at        DateTime64(3, 'UTC'),
  id        String,
  alert     String,
  position  UInt64,
  body      String COMMENT 'all of it, as JSON' CODEC(ZSTD(3)),
  INDEX notifications_by_alert alert TYPE bloom_filter GRANULARITY 1
) ENGINE = ReplacingMergeTree(position)
ORDER BY (workspace, mode, at, id)
COMMENT 'What people were told';

CREATE TABLE IF NOT EXISTS deliveries (
  workspace    LowCardinality(String),
  mode         LowCardinality(String),
  notification String,
  channel      String,
  status       LowCardinality(String) COMMENT 'pending, succeeded, failed or dropped',
  attempts     UInt32,
  outcome      Nullable(String),
  next_at      Nullable(DateTime64(3, 'UTC')),
  at           DateTime64(3, 'UTC'),
  revision     UInt64
) ENGINE = ReplacingMergeTree(revision)
ORDER BY (workspace, mode, notification, channel)
COMMENT 'What became of notifications at each destination';

CREATE TABLE IF NOT EXISTS quarantine (
  workspace LowCardinality(String),
  mode      LowCardinality(String),
  id        String,
  partition UInt32,
  code      LowCardinality(String),
  account   String COMMENT 'empty where it is not known',
  status    LowCardinality(String) COMMENT 'open, replayed or discarded',
  at        DateTime64(3, 'UTC'),
  revision  UInt64,
  body      String COMMENT 'all of it, as JSON' CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(revision)
ORDER BY (workspace, mode, id)
COMMENT 'Events that were set aside';
