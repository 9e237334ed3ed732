"""Chats: conversations that people keep, each visible only to the one who had it.

What was said and by which model; the answers themselves come through the gateway, this room only
stores. Start reading at `service.py`.
"""
