"""The bank in XenStore that store exercisers work in: its nodes, and what a client writes of each transfer.

accounts/%u           balances, whose sum never changes
clients/%u/count      transfers that this domain has committed
clients/%u/last/%u    its last ones, by id modulo SLOTS: "id giver taker amount"
"""

from __future__ import annotations

from typing import Final

ACCOUNTS: Final = 8
SLOTS: Final = 32
AMOUNT_MAX: Final = 100
BALANCE: Final = 1_000_000
"""What is in each account at first."""


def account(bank: str, number: int) -> str:
    return f"{bank}/accounts/{number}"


def client_count(bank: str, domid: int) -> str:
    return f"{bank}/clients/{domid}/count"


def client_slot(bank: str, domid: int, slot: int) -> str:
    return f"{bank}/clients/{domid}/last/{slot}"


def entry(id_: int, giver: int, taker: int, amount: int) -> str:
    """What a slot holds."""
    return f"{id_} {giver} {taker} {amount}"


def place(giver: int, taker: int) -> int:
    """Both accounts in one number, as a history has them."""
    return giver << 32 | taker


def accounts_of(place_: int) -> tuple[int, int]:
    """(giver, taker)."""
    return place_ >> 32, place_ & 0xFFFF_FFFF
