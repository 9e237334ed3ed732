"""The commands, one file per subject. Each is a thin function: ask the server, print the answer."""
