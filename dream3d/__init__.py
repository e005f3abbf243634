"""dream3d."""
