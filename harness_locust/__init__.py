"""What runs inside Locust: users, workers, a test's conductor and its page.

It imports the harness; the harness starts it in processes of its own and never imports it, because
importing Locust patches the interpreter.
"""
