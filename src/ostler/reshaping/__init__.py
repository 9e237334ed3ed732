"""Reshaping: one GGUF made of many parts, or many parts made of one, as jobs.

The weights are never changed: tensors are copied byte for byte into new files, which are read again and
compared before they get their name. The files that they are made of are only read. What may not come in:
anything that converts or quantizes, and anything that writes where a person keeps files without being
told to. Start reading at `service.py`; `layout.py` says what stands where in the new files, `copying.py`
writes and compares, `worker.py` is the process that does it.
"""
