"""A rollout in the report: weight and evidence over its looks, what was decided and why."""
