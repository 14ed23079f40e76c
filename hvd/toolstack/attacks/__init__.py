"""The attack suite: every attack by name, carried out by a real hostile domain, each with its negative control."""
