"""UI: the pages that people use in a browser.

A page draws what a room's service function returned and calls such functions when a button is
pressed: the same ones as the API and the command line. It holds no rule of its own and keeps no
state that a room should own. The room is empty yet.
"""
