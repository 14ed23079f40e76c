"""What `hvd bench` has done inside a domain: links, channels and work that are timed there."""
