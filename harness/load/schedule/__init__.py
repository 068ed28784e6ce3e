"""When requests fall due: arrivals, shapes of a load over time, recorded traces."""
