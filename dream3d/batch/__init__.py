"""Many prompts at once, on one machine or many, over jobs that nobody's death loses. See docs/batch.md."""
