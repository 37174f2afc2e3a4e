"""Published tables and figures again: what they need, ours beside theirs, and what that says.

`entries` reads the YAML files, `published` the papers' values, `ours` stored runs; `compare` and
`claims` judge, `draw` draws, `tables` writes, `reproduce` runs what is missing and does it all.
"""
