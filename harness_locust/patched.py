"""Imported before Locust: patches this process for gevent, as Locust does, in half of its time.

gevent asks for plugins at each of the 25 steps of its patching, and `importlib.metadata` opens all
that is installed each time. Here it is read once. Locust, imported after it, finds all patched.
"""

from importlib import metadata

from gevent import monkey

_entry_points = metadata.entry_points
metadata.entry_points = _entry_points().select
try:
    monkey.patch_all()
finally:
    metadata.entry_points = _entry_points
