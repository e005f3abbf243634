"""Whole pipelines as data: stages, their parts and their losses."""
