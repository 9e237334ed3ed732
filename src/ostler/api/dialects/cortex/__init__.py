"""Cortex's API, spoken over Ostler's rooms: vLLM and llama.cpp in containers behind an OpenAI gateway.

Its administration has the paths `/admin/*` and `/auth/*`, and a few under `/v1` that the gateway hands
over. `door.py` says who comes in, `errors.py` how failures look, `mounted.py` which routers there are.
One file per noun; Cortex's own names and numbers stand here and nowhere else in Ostler.
"""
