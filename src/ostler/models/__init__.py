"""Models: the room of the recipes.

A model is a named, stored recipe for serving: where its weights are (source), which engine
serves it with which options, what a request gets by default, where it runs and by which policy.
A llamactl instance, a Bodhi alias and a catalog entry are all models. What runs right now is not
known here (that is `instances`), nor how a command line is built (`engines`). Deleting a model
deletes its record only; its files stay. Start reading at `service.py`.
"""
