"""A guest that shows the temperature, once a second."""

import time


def main(guest):
    thermometer = guest.device("thermometer")
    while True:
        print(f"{thermometer.now():.1f} °C, at most {thermometer.highest():.1f} °C")
        time.sleep(1)
