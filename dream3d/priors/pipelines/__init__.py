"""diffusers' text-to-image pipelines as priors: one adapter, one table that says how each pipeline differs."""
