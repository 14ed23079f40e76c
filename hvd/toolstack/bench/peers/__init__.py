"""What hvd is measured beside: the ways that others send 64 bytes between two processes, and the physical limit."""
