"""Measurements of a running cluster: ring, disk, births, boots, recovery, each beside what it is held against."""
