"""Imported last by the process that measuring processes are forked from.

What is there by then is never garbage: a fresh process need not look through all libraries' objects
when it collects its own, which would cost it a second.
"""

import gc

gc.collect()
gc.freeze()
