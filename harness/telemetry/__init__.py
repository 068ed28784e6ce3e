"""What the server and the machine counted, over the very window of a trial."""
