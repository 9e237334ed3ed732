"""Engines: the inference programs, and what each of them understands.

An engine is a table of options (`options.py` reads such tables) and a few functions: build the
launch spec, read a health answer, find the executable, ask it what it can do, explain a dying
engine's log. `base.py` says what every engine must offer, `llamacpp.py` is llama.cpp, and
`registry.py` hands them out by name. A new engine is one new file and one line there.

`llama_server/` is a program of its own: it takes llama-server's flags and serves a model with
the llama.cpp inside the `xllamacpp` wheel. It starts often and must start fast, so nothing in
here, and above all not this file, imports pydantic, the database or the web.

What may not come in: processes and containers (`runtimes`), states (`instances`), model files
(`library`). Start reading at `base.py`, then `options.py`.
"""
