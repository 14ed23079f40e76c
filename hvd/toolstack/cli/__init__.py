"""The `hvd` command: what people type, over the cluster API."""
