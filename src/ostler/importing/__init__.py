"""Importing: taking over what another system keeps in its database.

Nothing is changed there, nothing is taken twice, and of each thing is told whether it was taken and if
not, why. `cortex_database.py` reads Cortex's tables, `cortex.py` takes what stands in them;
`llamactl_files.py` reads llamactl's configuration and database, `llamactl.py` takes what stands in those.
"""
