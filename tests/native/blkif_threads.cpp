// A disk's two ends in two threads under the sanitizers: random reads and writes through the ring and the pool, a backend that dies
// after each so many requests, and a disk in memory that gives a little at a time. What was written is what is read.
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <unordered_map>

#include "../../transport/native/blkback.hpp"
#include "../../transport/native/blkfront.hpp"
#include "expect.hpp"

using namespace hvd;

namespace {

constexpr std::uint32_t first_ref = 100;
constexpr std::size_t pool_pages = 64;
constexpr std::uint64_t disk_sectors = 4096;
constexpr int lives = 60;

std::byte* pages(std::size_t count) {
    void* at = ::mmap(nullptr, count * blkif::page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(at != MAP_FAILED);
    return static_cast<std::byte*>(at);
}

struct Machine {
    std::byte* ring = pages(1);
    std::byte* pool = pages(pool_pages);
    std::byte* channel = pages(1);
    std::vector<std::byte> disk = std::vector<std::byte>(disk_sectors * blkif::sector_size);
    std::atomic<bool> dead = false;
};

constexpr RingShape shape{blkif::request_size, blkif::response_size, blkif::request_size};

/// One life: serves until it has carried out so many requests, and ends between a transfer and its answer.
void live(Machine& machine, std::uint64_t seed) {
    std::mt19937_64 source(seed);
    Ring ring(RingEnd::back, {machine.ring, blkif::page_size}, shape);
    Doorbell bell(machine.channel, blkif::page_size, 1, -1, -1);
    blkif::Back back(ring, bell, {disk_sectors, false, 256}, true);
    back.add(first_ref, {machine.pool, pool_pages * blkif::page_size}, true);
    std::uint64_t transfers_left = 20 + source() % 300;
    struct Killed {};
    auto io = [&](std::uint8_t operation, const iovec* parts, int count, std::int64_t offset, std::uint64_t) -> ssize_t {
        if (source() % 16 == 0) {
            errno = EINTR;
            return -1;
        }
        const std::size_t most = source() % 4 == 0 ? 1 + source() % 3000 : machine.disk.size();
        std::size_t done = 0;
        for (int i = 0; i < count && done < most; ++i) {
            const std::size_t length = std::min(parts[i].iov_len, most - done);
            std::byte* place = machine.disk.data() + static_cast<std::size_t>(offset) + done;
            std::memcpy(operation == blkif::read ? parts[i].iov_base : place, operation == blkif::read ? place : parts[i].iov_base, length);
            done += length;
        }
        if (--transfers_left == 0) {
            throw Killed{};
        }
        return static_cast<ssize_t>(done);
    };
    try {
        for (;;) {
            while (!ring.has_work()) {
                std::this_thread::yield();
            }
            for (blkif::Held held = back.serve(32, io); held.need != blkif::Need::nothing; held = back.answer(blkif::okay, io)) {
                EXPECT(held.need == blkif::Need::control && held.operation == blkif::flush);
            }
        }
    } catch (const Killed&) {
        machine.dead = true;
    }
}

/// What the guest knows: the contents of its disk, and what is in flight, which overlaps with nothing else in flight.
class Guest {
public:
    explicit Guest(blkif::Front& front) : front_(front) {}

    void submit() {
        if (source_() % 20 == 0) {
            flying_[front_.id_at(front_.control(blkif::flush, 0, 0))] = {};
            return;
        }
        const std::uint64_t count = source_() % 4 == 0 ? 89 + source_() % 100 : 1 + source_() % 20;
        const std::uint64_t sector = source_() % (disk_sectors - count);
        for (const auto& [id, other] : flying_) {
            if (sector < other.sector + other.count && other.sector < sector + count) {
                return;
            }
        }
        Flying flying{source_() % 2 == 0 ? blkif::read : blkif::write, sector, count, std::vector<std::byte>(count * blkif::sector_size)};
        for (auto& byte : flying.memory) {
            byte = static_cast<std::byte>(source_() & 0xff);
        }
        const auto place = front_.transfer(flying.operation, sector, flying.memory);
        if (place) {
            flying_.emplace(front_.id_at(*place), std::move(flying));
        }
    }

    void take() {
        while (const auto completed = front_.take_any()) {
            const auto found = flying_.find(completed->id);
            EXPECT(found != flying_.end() && completed->error == 0);
            Flying& flying = found->second;
            std::byte* known = known_.data() + flying.sector * blkif::sector_size;
            if (flying.operation == blkif::read) {
                EXPECT(std::memcmp(flying.memory.data(), known, flying.memory.size()) == 0);
            } else if (!flying.memory.empty()) {
                std::memcpy(known, flying.memory.data(), flying.memory.size());
            }
            flying_.erase(found);
            ++taken;
        }
    }

    std::uint64_t taken = 0;
    bool idle() const { return flying_.empty(); }
    const std::vector<std::byte>& known() const { return known_; }

private:
    struct Flying {
        blkif::Operation operation = blkif::flush;
        std::uint64_t sector = 0;
        std::uint64_t count = 0;
        std::vector<std::byte> memory;
    };

    blkif::Front& front_;
    std::mt19937_64 source_{11};
    std::unordered_map<std::uint64_t, Flying> flying_;
    std::vector<std::byte> known_ = std::vector<std::byte>(disk_sectors * blkif::sector_size);
};

}  // namespace

int main() {
    start_watchdog();
    Machine machine;
    blkif::Front front({machine.pool, pool_pages * blkif::page_size}, first_ref, 1'000'000'000'000);
    Guest guest(front);
    Doorbell bell(machine.channel, blkif::page_size, 0, -1, -1);
    for (int life = 0; life < lives || !guest.idle(); ++life) {
        Ring ring(RingEnd::front, {machine.ring, blkif::page_size}, shape);
        ring.init();
        machine.dead = false;
        std::thread backend(live, std::ref(machine), static_cast<std::uint64_t>(life));
        front.attach(ring, bell, {"test", disk_sectors, 256});
        while (!machine.dead && !(life >= lives && guest.idle())) {
            if (life < lives) {
                guest.submit();
                front.pump();
            }
            front.collect();
            guest.take();
        }
        if (!machine.dead) {  // the last one waits for work that would let it end
            static std::byte sector[blkif::sector_size];
            while (!machine.dead) {
                front.transfer(blkif::read, 0, sector);
                front.pump();
                front.collect();
                while (front.take_any()) {
                }
            }
        }
        backend.join();
        front.collect();
        front.detach();
        if (!guest.idle()) {
            guest.take();
        }
        while (front.take_any()) {  // of the reads that only let the last backend end, some may have been answered late
        }
    }
    front.expire(never_ns);
    while (front.take_any()) {
    }
    EXPECT(front.free_pages() == pool_pages && front.in_flight() == 0);
    EXPECT(machine.disk == guest.known());
    EXPECT(guest.taken > 1000);
    return 0;
}
