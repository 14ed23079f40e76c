"""Each device's protocol, declared once for both ends."""
