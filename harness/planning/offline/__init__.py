"""A nightly job of many documents: the batch worth while, machines by the deadline, its cost."""
