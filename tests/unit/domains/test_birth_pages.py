"""What births use of the image is learnt from the first few, and those who stand by have it beforehand."""

import mmap
import os
import resource
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from hvd.domains import birth_pages
from hvd.domains.birth_pages import LEARNT_FROM, SHARED_BY, BirthPages

PAGES = 512


def can_be_read():
    with suppress(OSError), open("/proc/self/pagemap", "rb") as pagemap:
        return len(pagemap.read(8)) == 8
    return False


pytestmark = pytest.mark.skipif(not can_be_read(), reason="this kernel shows no pagemap")


class Image:
    """Pages of ours, each of which may be written to by a child."""

    def __init__(self):
        self.memory = mmap.mmap(-1, PAGES * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.write(b"\1" * len(self.memory))

    def write(self, pages):
        for page in pages:
            self.memory[page * mmap.PAGESIZE] = 2


class Child:
    """Of this process, which does something to these pages and lives until it is let go."""

    def __init__(self, act):
        read, self._let_go = os.pipe()
        done, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._let_go)
            act()
            os.write(tell, b"done")
            os.read(read, 1)
            os._exit(0)
        os.close(read)
        os.close(tell)
        assert os.read(done, 4) == b"done"
        os.close(done)

    def end(self):
        os.close(self._let_go)
        os.waitpid(self.pid, 0)


def learn(pages, act, meanwhile=lambda: None):
    """From a birth, beside one that stands by."""
    witness = Child(lambda: None)
    child = Child(act)
    pages.follow(child.pid)
    meanwhile()
    pages.look()
    child.end()
    witness.end()


def faults_of(image, pages, written):
    """How many page faults a child has that brings in what was learnt, as it writes to these pages."""
    read, write = os.pipe()

    def act():
        pages.bring_in()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        image.write(written)
        os.write(write, struct.pack("i", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))

    Child(act).end()
    (count,) = struct.unpack("i", os.read(read, 4))
    os.close(read)
    os.close(write)
    return count


def test_what_several_births_have_written_to_is_there_before_it_is_written_to_and_what_one_has_is_not():
    image, pages = Image(), BirthPages()
    alone, shared = range(0, PAGES, 4), range(2, PAGES, 4)
    learn(pages, lambda: image.write([*alone, *shared]))
    for _ in range(SHARED_BY - 1):
        learn(pages, lambda: image.write(shared))
    assert faults_of(image, pages, alone) >= len(alone)
    assert faults_of(image, pages, shared) < len(shared) // 2


def test_what_the_image_itself_has_written_to_since_is_none_of_the_births():
    image, pages = Image(), BirthPages()
    for _ in range(SHARED_BY):
        learn(pages, lambda: None, meanwhile=lambda: image.write(range(PAGES)))
    assert faults_of(image, pages, range(PAGES)) >= PAGES


def test_what_the_image_has_written_to_between_two_forks_is_none_of_the_births():
    """Who was forked first has it as it was, alone, as if he had written to it."""
    image, pages = Image(), BirthPages()
    for _ in range(LEARNT_FROM // 2):
        child = Child(lambda: None)
        image.write(range(PAGES))
        witness = Child(lambda: None)
        pages.follow(child.pid)
        pages.look()
        witness.end()
        child.end()
    for _ in range(LEARNT_FROM - LEARNT_FROM // 2):
        learn(pages, lambda: None)
    assert not pages.waiting and faults_of(image, pages, range(PAGES)) >= PAGES


def test_nothing_is_written_to_or_changed_by_bringing_it_in():
    image, pages = Image(), BirthPages()
    for _ in range(SHARED_BY):
        learn(pages, lambda: image.write(range(PAGES)))
    before = image.memory[:]
    pages.bring_in()
    assert image.memory[:] == before


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_only_the_first_births_are_looked_at_and_one_at_a_time():
    pages = BirthPages()
    for _ in range(LEARNT_FROM):
        child = Child(lambda: None)
        pages.follow(child.pid)
        before = open_files()
        pages.follow(child.pid)
        assert (pages.waiting, open_files()) == (True, before)
        pages.look()
        child.end()
    pages.follow(os.getpid())
    assert not pages.waiting


def test_one_that_is_dead_teaches_nothing_and_does_not_count(monkeypatch):
    monkeypatch.setattr(birth_pages, "LEARNT_FROM", 1)
    image, pages = Image(), BirthPages()
    child = Child(lambda: image.write(range(PAGES)))
    pages.follow(child.pid)
    child.end()
    pages.look()
    pages.follow(child.pid)
    assert not pages.waiting
    child = Child(lambda: None)
    pages.follow(child.pid)
    assert pages.waiting
    pages.look()
    child.end()


def test_guests_that_write_to_everything_have_no_more_copied_than_so_many_pages(monkeypatch):
    monkeypatch.setattr(birth_pages, "COPIED_MAX", PAGES // 4)
    image, pages = Image(), BirthPages()
    for _ in range(SHARED_BY):
        learn(pages, lambda: image.write(range(PAGES)))
    assert faults_of(image, pages, range(PAGES)) >= PAGES - PAGES // 4


def test_a_kernel_that_shows_no_pagemap_is_done_without(monkeypatch):
    def refuse(*_):
        raise FileNotFoundError

    pages = BirthPages()
    monkeypatch.setattr(os, "open", refuse)
    pages.follow(os.getpid())
    assert not pages.waiting
