"""One body of tests for every device driver: `pytest --pyargs hvd.toolstack.conformance --hvd-device KIND`."""
