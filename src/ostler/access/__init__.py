"""Access: who may come in, as whom, and how often.

Keys (random, shown once, stored as SHA-256), people with passwords, browser sessions, the rules for
the person at this machine, and the limits of each key. Everything that a request needs is in memory:
no query stands between a request and its answer. Which route needs which role is not decided here,
that is said at the doors. Start reading at `service.py`; `browser.py` keeps foreign web pages out.
"""
