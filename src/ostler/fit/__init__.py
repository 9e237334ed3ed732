"""Fit: the room that knows what goes in.

Here live the devices of this host (`devices.py`), others in their place (`pretend.py`, `hardware.py`), the
estimate of the memory that a model needs on each of them (`estimate.py`), what that means for a start
(`need.py`), what is chosen where a recipe leaves it open (`choosing.py`, with its `reasons.py`), and the
ledger of who holds what (`ledger.py`). For the estimate, `model_shape.py` reads a model's layers from its
header, `llamacpp_settings.py` the options as llama.cpp takes them, `placement.py` deals the tensors out,
`kv_cache.py` counts the cache, and `compute.py` with `graph_*.py` plays the engine's graph through an
allocator; `architectures.py` holds what no header says. The files `vllm_*.py` do the same for vLLM, from
safetensors and `config.json`; `counting.py` picks by format. Nothing here starts or stops anything: who
leaves for whom is decided in `instances`. Start reading at `answering.py`.
"""
