"""llamactl's API, spoken over Ostler's rooms: GGUF downloads and instances of llama-server.

Its administration has the paths `/api/v1/*`, its instances answer below `/llama-cpp/*` too. `door.py`
says who comes in and how bodies are read, `errors.py` how failures look, `mounted.py` which routers
there are, `nodes.py` what `?node=` means. One file per noun; llamactl's own names stand here and
nowhere else in Ostler.
"""
