"""The library: model files on disk.

Here lives everything that looks at files: reading GGUF and safetensors headers, knowing how a root
arranges its files (layouts), grouping files that load as one thing (file sets), one listing over
all roots, and the rules for deleting. Nothing here knows what a model recipe, an engine or a
download is, and nothing here writes a model file: downloads place files, the library only reads
them and, asked by name and only in roots that Ostler fills, deletes them.
Start reading at `service.py`; `gguf.py` is the most interesting part.
"""
