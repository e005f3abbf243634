"""Finished scenes as files other programs read."""
