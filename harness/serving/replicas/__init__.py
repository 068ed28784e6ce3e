"""Several embedded servers of one model on this machine, behind one address."""
