"""What a run may say: typed sections, the loader, presets. Imports no torch.

`configs.load.load` reads a preset or a file, `configs.show.show` prints what came of it.
"""
