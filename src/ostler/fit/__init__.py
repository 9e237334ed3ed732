"""Fit: the room that knows what goes in.

Here live the devices of this host (memory in all, memory free) and the estimate of the memory that a
model needs on each of them. `estimate.py` adds up; `model_shape.py` reads a model's layers from its
header, `llamacpp_settings.py` the options as llama.cpp takes them, `placement.py` deals the tensors out,
`kv_cache.py` counts the cache, and `compute.py` with `graph_*.py` plays the engine's graph through an
allocator. `architectures.py` holds what no header says. `hardware.py` reads
descriptions of hardware that is not here, `answering.py` puts it all together. Nothing here starts or
stops anything.
Start reading at `estimate.py`.
"""
