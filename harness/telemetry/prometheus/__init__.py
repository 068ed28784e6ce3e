"""The server's side of a trial as a Prometheus recorded it."""
