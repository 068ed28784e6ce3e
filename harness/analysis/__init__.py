"""Analysis: pure functions over stored results (latency, validity, attribution)."""
