"""The laboratory: how good a 3D asset, or a prior, is against a world whose truth is known.

Nothing in here ever steers an optimisation; the evaluator that reads pictures shares no weights with the prior.
"""
