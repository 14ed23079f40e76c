"""What a domain does that was taken over: hostile code for `hvd attack`, which boots it as the kernel `hvd:hostile`."""
