"""A router in the report: what it does at every threshold, and as it was deployed."""
