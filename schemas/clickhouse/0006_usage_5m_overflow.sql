-- The groups of a window add up to its total: what had no room in a group of its own is in one whose `grp` is 'overflow',
-- and `overflow` says so. `grp` is still empty for the total.
CREATE OR REPLACE VIEW usage_5m AS
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
  max(newest.8) AS revision,
  grp = 'overflow' AS overflow
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
