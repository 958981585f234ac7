-- Usage as people and dashboards want it: one row a window, whatever was written how often, in decimals. Filters on
-- workspace, mode, account, metric and start reach the table's key. `grp` is empty for the total, which counts every
-- event once; sums over all of `grp` count grouped events twice. An account that was reset or deleted shows its newest
-- epoch that has events.
CREATE VIEW IF NOT EXISTS usage_5m AS
SELECT
  workspace,
  mode,
  account,
  metric,
  grp,
  start,
  sum(newest.1) AS events,
  toDecimal256(sum(toInt256(newest.2)), 9) / 1000000000 AS sum,
  toDecimal256(min(newest.3), 9) / 1000000000 AS min,
  toDecimal256(max(newest.4), 9) / 1000000000 AS max,
  toDecimal256(argMax(newest.5, (newest.6, part)), 9) / 1000000000 AS last,
  sum(newest.7) AS late_events,
  max(newest.8) AS revision
FROM (
  SELECT
    workspace, mode, epoch, account, metric, grp, start, part,
    argMax((w.count, w.sum, w.min, w.max, w.last, w.last_at, w.late_events, w.revision), w.revision) AS newest
  FROM usage_windows AS w
  WHERE (workspace, mode, account, epoch) IN (
    SELECT workspace, mode, account, max(epoch) FROM accounts GROUP BY workspace, mode, account
  )
  GROUP BY workspace, mode, epoch, account, metric, grp, start, part
)
GROUP BY workspace, mode, account, metric, grp, start;
