"""A student as the draft of its teacher: it proposes tokens, and the teacher checks them at once."""
