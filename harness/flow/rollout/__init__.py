"""A student takes over live traffic in stages: what is sent, what is counted, what is decided."""
