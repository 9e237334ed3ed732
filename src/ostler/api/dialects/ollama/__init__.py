"""Ollama's HTTP API (https://docs.ollama.com/api), over our rooms.

The management of models (`listing.py`, `pulling.py`, `keeping.py`, `creating.py`) is made of routes as any
other. What engines answer (chat, generate, embed) goes through the gateway: `exchanges.py` says what such a
request means in the words of OpenAI's API (`asking.py`, `options.py`) and how the answer looks here
(`answering.py`). What works and what differs: docs/ollama.md. Start reading at `mounted.py`.
"""
