"""The console device: what a domain prints and what is typed to it, and the pty in domain 0 that it ends in."""
