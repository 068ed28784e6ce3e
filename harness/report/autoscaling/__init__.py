"""The section on autoscaling: policies as a table, their front, one of them over time."""
