"""The hypervisor process: tables, policy, XenStore, and the loop that answers hypercalls."""
