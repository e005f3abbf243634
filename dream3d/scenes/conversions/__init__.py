"""From one representation to another, one file each; see docs/representations.md."""
