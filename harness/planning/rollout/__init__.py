"""A student takes over the teacher's traffic step by step, and is taken back when it does harm."""
