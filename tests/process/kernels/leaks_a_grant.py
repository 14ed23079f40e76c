"""A guest that grants one page more in each life than in the one before."""


def main(guest):
    guest.runtime.grants.share(0, guest.incarnation)
    guest.run_forever()
