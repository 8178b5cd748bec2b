"""Training Kanade: recipes, data, losses, the Lightning module, checkpoints and export.

`recipe` and `parts` are the borders: a recipe is read from YAML and names the parts (nets, front end, mel, vocoder)
that the rest is written against, so that another front end trains by the same code. Import from the modules themselves.
"""
