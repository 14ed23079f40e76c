"""What runs in the user's process: the cluster file, the command line, and the questions put to a running machine."""
