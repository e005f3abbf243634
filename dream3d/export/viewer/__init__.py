"""The page of the `html` format: one file, no request to anywhere, splats and textured meshes in WebGL 2."""
