"""Models in process, without a server: their speed, where their time goes, what bounds it."""
