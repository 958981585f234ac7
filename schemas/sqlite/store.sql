-- The store: read models, made anew from the journal at any time. Every row is an upsert; the greater revision wins.
-- Amounts are counts of 10^-9: an integer where it fits 64 bits, else 16 bytes big-endian. Ids are 16 bytes.
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;

CREATE TABLE IF NOT EXISTS positions (
  partition INTEGER PRIMARY KEY,
  position  INTEGER NOT NULL, -- everything up to this record is stored
  clock     INTEGER NOT NULL  -- the fold's clock behind it
) STRICT;

CREATE TABLE IF NOT EXISTS series (
  id        INTEGER PRIMARY KEY,
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, epoch INTEGER NOT NULL,
  account   TEXT NOT NULL, metric TEXT NOT NULL, grp TEXT NOT NULL,
  UNIQUE (workspace, mode, epoch, account, metric, grp)
) STRICT;

CREATE TABLE IF NOT EXISTS usage_windows (
  series INTEGER NOT NULL, start INTEGER NOT NULL, part INTEGER NOT NULL,
  count INTEGER NOT NULL, sum ANY NOT NULL, min ANY NOT NULL, max ANY NOT NULL, last ANY NOT NULL, last_at INTEGER NOT NULL,
  late_events INTEGER NOT NULL, revision INTEGER NOT NULL,
  PRIMARY KEY (series, start, part)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS accounts (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, account TEXT NOT NULL, epoch INTEGER NOT NULL,
  first_seen_at INTEGER NOT NULL, revision INTEGER NOT NULL,
  PRIMARY KEY (workspace, mode, account, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS alert_states (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, alert BLOB NOT NULL, account TEXT NOT NULL, metric TEXT NOT NULL,
  epoch INTEGER NOT NULL, state TEXT, since INTEGER NOT NULL, silenced INTEGER NOT NULL, value ANY,
  evaluated_at INTEGER NOT NULL, revision INTEGER NOT NULL,
  PRIMARY KEY (workspace, mode, alert, account, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS alert_transitions (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, alert BLOB NOT NULL, account TEXT NOT NULL, metric TEXT NOT NULL,
  sequence INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (workspace, mode, alert, account, metric, sequence)
) STRICT;
CREATE INDEX IF NOT EXISTS alert_transitions_by_time ON alert_transitions (workspace, mode, alert, at);

-- Which transitions begin incidents: an index on alert_transitions, made of them.
CREATE TABLE IF NOT EXISTS incidents (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, id BLOB NOT NULL, at INTEGER NOT NULL, alert BLOB NOT NULL,
  account   TEXT NOT NULL, metric TEXT NOT NULL, sequence INTEGER NOT NULL,
  PRIMARY KEY (workspace, mode, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS incidents_by_time ON incidents (workspace, mode, at, id);

CREATE TABLE IF NOT EXISTS notifications (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, id BLOB NOT NULL, alert BLOB NOT NULL, at INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (workspace, mode, id)
) STRICT;
CREATE INDEX IF NOT EXISTS notifications_by_alert ON notifications (workspace, mode, alert, at);

CREATE TABLE IF NOT EXISTS deliveries (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, notification BLOB NOT NULL, channel BLOB NOT NULL,
  status TEXT NOT NULL, attempts INTEGER NOT NULL, outcome TEXT, next_at INTEGER, at INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  PRIMARY KEY (workspace, mode, notification, channel)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_by_channel ON deliveries (workspace, mode, channel, at, notification);

CREATE TABLE IF NOT EXISTS quarantine (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, id BLOB NOT NULL, partition INTEGER NOT NULL, code TEXT NOT NULL,
  account TEXT NOT NULL, status TEXT NOT NULL, at INTEGER NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (workspace, mode, id)
) STRICT;

CREATE TABLE IF NOT EXISTS webhook_events (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, id BLOB NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (workspace, mode, id)
) STRICT;

CREATE TABLE IF NOT EXISTS webhook_deliveries (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, webhook BLOB NOT NULL, event BLOB NOT NULL,
  kind TEXT NOT NULL, log INTEGER NOT NULL, created_at INTEGER NOT NULL,
  status TEXT NOT NULL, attempts INTEGER NOT NULL, outcome TEXT, next_at INTEGER, at INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  PRIMARY KEY (workspace, mode, webhook, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS webhook_deliveries_by_age ON webhook_deliveries (workspace, mode, webhook, created_at, event);
CREATE INDEX IF NOT EXISTS webhook_deliveries_pending ON webhook_deliveries (workspace, mode, webhook, log) WHERE status = 'pending';

CREATE TABLE IF NOT EXISTS webhook_attempts (
  workspace BLOB NOT NULL, mode INTEGER NOT NULL, webhook BLOB NOT NULL, event BLOB NOT NULL, attempt INTEGER NOT NULL,
  at INTEGER NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (workspace, mode, webhook, event, attempt)
) STRICT, WITHOUT ROWID;
