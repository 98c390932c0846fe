"""Makes the folder layout of `segmodel.data.folder` from what annotation tools write; the command is `command.py`.

`tree.py` finds the files and pairs pictures with labels, one module a format reads them (`FORMATS` in `formats.py`),
`classes.py` decides what their values mean, `splits.py` what trains, `write.py` writes.
"""
