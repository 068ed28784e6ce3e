"""What the harness itself exposes to a Prometheus while it runs."""
