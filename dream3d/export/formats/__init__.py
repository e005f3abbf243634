"""One file per format; each registers itself in `dream3d.export.formats.base.FORMATS`."""
