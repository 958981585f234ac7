-- Names the incident that a transition begins, so that it is found by its id. Older transitions have none until the
-- store is made anew (highwater replay).
ALTER TABLE alert_transitions ADD COLUMN IF NOT EXISTS incident String DEFAULT '' COMMENT 'the incident that this begins; empty for others';
