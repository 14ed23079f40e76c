"""The machine process: forks and reaps the others and keeps every descriptor; it never speaks to a domain."""
