"""Cortex's API, spoken over Ostler's rooms: vLLM and llama.cpp in containers behind an OpenAI gateway.

Here so far: how an estimate and a dry run of ours look in its answers (`dry_run.py`). Field names are
Cortex's own; the numbers are ours. Nothing here decides anything.
"""
