import time

AUTO_READY = False  # it says itself when it is ready


def main(guest):
    disk = guest.disk()
    count = int.from_bytes(disk.read(0, 1), "little")
    while True:
        count += 1
        disk.write(0, count.to_bytes(512, "little"))
        disk.flush()
        print(f"{count} is on the disk")
        guest.ready()
        time.sleep(0.1)
