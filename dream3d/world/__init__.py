"""The procedural world: captioned objects with exact geometry, and the grammar that names them.

Import from its modules: `catalog` (the categories), `grammar` (prompts and captions), `objects` (a caption becomes
geometry), `render` and `mesh` (images and surfaces of it), `sheet` (a picture of everything), `freeze` (its hash).
"""
