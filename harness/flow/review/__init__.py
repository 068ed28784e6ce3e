"""Stored runs made into what is compared and weighed."""
