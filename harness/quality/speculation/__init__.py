"""A student as its teacher's draft: it proposes tokens, and the teacher checks them at once."""
