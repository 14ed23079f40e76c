"""Kernels that ship ready to boot."""
