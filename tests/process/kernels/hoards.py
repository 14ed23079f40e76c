"""Holds memory: MiB that it keeps and MiB that it can spare, as its two arguments say."""

MIB = 1 << 20


def main(guest):
    kept, spare = (int(number) for number in guest.args)
    hoard = {"kept": bytearray(b"x" * (kept * MIB)), "spare": bytearray(b"x" * (spare * MIB))}
    guest.on_shrink(lambda kib: hoard.pop("spare", None))
    guest.write_console("hoards\n")
    guest.run_forever()
