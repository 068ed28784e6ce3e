"""What a run comes to: a release against the last one, and variants weighed for a decision."""
