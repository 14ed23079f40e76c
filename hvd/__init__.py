"""hvd: Xen's paravirtual architecture carried out by Linux processes."""
