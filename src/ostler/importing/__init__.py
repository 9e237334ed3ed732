"""Importing: taking over what another system keeps in its database or its files.

Nothing is changed there, nothing is taken twice, and of each thing is told whether it was taken and if
not, why. `cortex_database.py` reads Cortex's tables, `cortex.py` takes what stands in them; likewise
`llamactl_files.py` and `llamactl.py` for llamactl's configuration and database, `bodhi_home.py` and
`bodhi.py` for BodhiApp's folder.
"""
