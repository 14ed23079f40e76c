"""A guest that is any program: its own process is our init, the program is init's child and knows nothing of hvd."""
