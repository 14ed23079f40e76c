"""One body of tests for every device driver, shipped or not: `pytest --pyargs hvd.toolstack.conformance --device KIND`."""
