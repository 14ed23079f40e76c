"""Faults from outside: kill domains and judge what was lost."""
