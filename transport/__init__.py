"""What crosses between processes: ids, messages, pages, rings, event channels."""
