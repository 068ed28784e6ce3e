"""Intervals, paired comparisons, metrics as sums over rows: what task families count with."""
