"""The pages of a review: a decision to sign, and a run against an earlier one."""
