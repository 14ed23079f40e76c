"""Measurements of a running cluster: the ring, births, boots and recovery, each beside what it is to be held against."""
