"""Load: payloads, transports, the recorder, and the Locust processes that drive them."""
