"""ostler-llama-server: llama-server's flags, served by the llama.cpp inside the xllamacpp wheel.

A program of its own that Ostler starts like any other engine, so that a machine with Python and
nothing else can serve a model. Every flag of the option table is either carried out or refused
with exit code 2; none is ignored. It starts often and must be ready fast: nothing in here imports
more of Ostler than the option table. Start reading at `main.py`.
"""
