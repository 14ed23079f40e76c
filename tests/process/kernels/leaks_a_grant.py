"""A guest that grants one page more in each life than in the one before, and a domain that never comes back as it was."""


def main(guest):
    guest.runtime.grants.share(0, guest.incarnation)
    guest.run_forever()
