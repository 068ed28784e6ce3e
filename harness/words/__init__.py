"""How things read in a report: numbers, names, loads, losses."""
