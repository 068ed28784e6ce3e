"""What the harness needs of the machine it runs on: caches, storage, connections, libraries."""
