"""Scenarios: seeded schedules of faults over a cluster under load, judged by everything that was recorded."""
