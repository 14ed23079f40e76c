"""What runs inside a domain's process."""
