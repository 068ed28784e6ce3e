"""The section on capacity: a plan as a table, and latency over rate."""
