"""What other work on the machine does to a trial, in the words of its reason."""

HELD_UP = ("sent late", "slow to send", "woke late", "steady", "short of a core")
"""A trial that is invalid for one of these was measured on a busy machine; no fault of the code."""
