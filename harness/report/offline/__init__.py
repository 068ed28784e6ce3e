"""The section on a job with a deadline: batch sizes, machines, cost, and their pictures."""
