"""Renderers: functions from scene data and cameras to images, each with a readable torch reference."""
