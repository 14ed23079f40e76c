"""A guest that shows the temperature, once a second."""

from hvd.domains import Guest


def main(guest: Guest) -> None:
    thermometer = guest.device("thermometer")
    while True:
        print(f"{thermometer.now():.1f} °C, at most {thermometer.highest():.1f} °C")
        guest.wait(1.0)
