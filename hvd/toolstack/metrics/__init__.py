"""What Prometheus is told of a cluster. Needs the extra `metrics`."""
