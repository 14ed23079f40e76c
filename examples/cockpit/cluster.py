"""The instrument cluster: speed, engine and fuel, a line a second on its console. No disk, no driver domain."""

from __future__ import annotations

import math
import time

from hvd.domains.guest import Guest

PERIOD_S = 1.0
CYCLE_S = 40.0
TOP_KMH = 110.0
TANK_L = 50.0
LITRES_PER_KM = 0.07
WARN_BELOW_L = 7.0
KMH_PER_GEAR = 22.0


class Car:
    """What the sensors say: a drive that speeds up and slows down again for ever."""

    def __init__(self) -> None:
        self.speed_kmh = 0.0
        self.driven_km = 0.0
        self.fuel_l = TANK_L

    def drive(self, at_s: float, passed_s: float) -> None:
        """Go on for `passed_s`, up to `at_s` after the start."""
        self.speed_kmh = TOP_KMH / 2 * (1 - math.cos(2 * math.pi * at_s / CYCLE_S))
        distance_km = self.speed_kmh * passed_s / 3600
        self.driven_km += distance_km
        self.fuel_l = max(0.0, self.fuel_l - distance_km * LITRES_PER_KM)

    def dashboard(self) -> str:
        """The line that the driver sees."""
        gear = int(self.speed_kmh // KMH_PER_GEAR) + 1
        rpm = 800 + 2400 * (self.speed_kmh % KMH_PER_GEAR) / KMH_PER_GEAR
        lamp = "  REFUEL" if self.fuel_l < WARN_BELOW_L else ""
        engine = f"{self.speed_kmh:5.1f} km/h  {rpm:4.0f} rpm  gear {gear}"
        return f"{engine}  {self.driven_km:7.3f} km  fuel {self.fuel_l:4.1f} l{lamp}"


def main(guest: Guest) -> None:
    """Drive until shut down. While the domain is paused the car stands too."""
    car = Car()
    print(f"cluster: incarnation {guest.incarnation}, all lamps on")
    seconds = 0
    due = time.monotonic()
    while True:
        seconds += 1
        car.drive(seconds * PERIOD_S, PERIOD_S)
        print(f"cluster: {car.dashboard()}")
        due = max(due + PERIOD_S, time.monotonic())
        while (left := due - time.monotonic()) > 0:
            guest.wait(left)
