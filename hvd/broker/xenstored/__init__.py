"""XenStore's own protocol: what its messages mean to the store, and the sockets and rings that they come by."""
