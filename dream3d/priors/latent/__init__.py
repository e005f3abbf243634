"""Latent diffusion models in the diffusers format: their parts, and the adapter that reads them as a `Prior`."""
