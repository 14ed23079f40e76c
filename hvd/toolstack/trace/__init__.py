"""A trace of a running cluster: what its domains wrote, joined to a story, as a file for ui.perfetto.dev."""
