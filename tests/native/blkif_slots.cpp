// The decoder of untrusted slots and the transfer of scatter lists, under the sanitizers: random and nearly valid requests,
// every byte that comes out is used; system calls that do less than they were asked for.
#include <cstring>
#include <memory>
#include <random>

#include "../../transport/native/blkback.hpp"
#include "expect.hpp"

using namespace hvd::blkif;

namespace {

std::mt19937_64 source(7);

std::array<std::byte, request_size> random_slot(std::uint32_t first_ref, std::size_t pages) {
    std::array<std::byte, request_size> slot;
    for (auto& byte : slot) {
        byte = static_cast<std::byte>(source() & 0xff);
    }
    Request request;
    std::memcpy(&request, slot.data(), sizeof request);
    request.operation = static_cast<std::uint8_t>(source() % 8);
    if (source() % 4 != 0) {
        request.segments = static_cast<std::uint8_t>(source() % 13);
        request.sector = source() % 1002;
        for (auto& segment : request.segment) {
            segment.ref = first_ref + static_cast<std::uint32_t>(source() % (pages + 1)) - (source() % 16 == 0 ? 1U : 0U);
            segment.first_sector = static_cast<std::uint8_t>(source() % 8);
            segment.last_sector = static_cast<std::uint8_t>(source() % 9);
        }
    }
    std::memcpy(slot.data(), &request, sizeof request);
    if (request.operation == indirect) {
        Indirect inner;
        std::memcpy(&inner, slot.data(), sizeof inner);
        inner.indirect_operation = static_cast<std::uint8_t>(source() % 3);
        inner.segments = static_cast<std::uint16_t>(source() % 300);
        inner.refs[0] = first_ref;
        std::memcpy(slot.data(), &inner, sizeof inner);
    }
    return slot;
}

void decode_anything() {
    constexpr std::size_t pages = 3;
    constexpr std::uint32_t first_ref = 40;
    const auto memory = std::make_unique<std::byte[]>(pages * page_size);  // red zones on either side
    GrantMap grants;
    grants.add(first_ref, {memory.get(), pages * page_size}, true);
    Decoder decoder({1000, false, 256}, grants);
    Checked checked;
    unsigned whole = 0;
    for (int round = 0; round < 200'000; round++) {
        decoder.decode(random_slot(first_ref, pages), checked);
        if (checked.status != okay || checked.missing) {
            continue;
        }
        for (const iovec& part : checked.memory) {
            for (auto& byte : std::span(static_cast<std::byte*>(part.iov_base), part.iov_len)) {
                byte ^= std::byte{0x5a};
            }
            whole += part.iov_len != 0;
        }
    }
    EXPECT(whole > 1000);
    expect_throw<hvd::LocalError>([&] { Decoder({1, false, 4097}, grants); }, "a table of more pages than a slot names");
}

/// Parts of random lengths, some empty, from a file that gives a little at a time and is interrupted.
void transfer_everything() {
    std::vector<std::byte> file(100'000);
    for (auto& byte : file) {
        byte = static_cast<std::byte>(source() & 0xff);
    }
    for (int round = 0; round < 200; round++) {
        std::vector<std::byte> memory(60'000);
        std::vector<iovec> parts;
        std::size_t wanted = 0;
        while (parts.size() < 3000 && wanted < memory.size()) {
            const std::size_t length = std::min<std::size_t>(source() % 40, memory.size() - wanted);
            parts.push_back({memory.data() + wanted, length});
            wanted += length;
        }
        const std::size_t begin = source() % 1000;
        const std::size_t end = round % 2 == 0 ? file.size() : begin + wanted / 2;
        const int error = transfer(parts, static_cast<std::int64_t>(begin), [&](const iovec* some, int count, std::int64_t offset) -> ssize_t {
            EXPECT(count > 0 && count <= IOV_MAX);
            if (source() % 8 == 0) {
                errno = EINTR;
                return -1;
            }
            std::size_t most = source() % 3 == 0 ? 1 + source() % 500 : file.size();
            most = std::min(most, end - static_cast<std::size_t>(offset));
            std::size_t done = 0;
            for (int i = 0; i < count && done < most; ++i) {
                const std::size_t length = std::min(some[i].iov_len, most - done);
                std::memcpy(some[i].iov_base, file.data() + static_cast<std::size_t>(offset) + done, length);
                done += length;
            }
            return static_cast<ssize_t>(done);
        });
        EXPECT(error == (round % 2 == 0 ? 0 : EIO));
        EXPECT(std::memcmp(memory.data(), file.data() + begin, round % 2 == 0 ? wanted : wanted / 2) == 0);
    }
    iovec part{file.data(), 10};
    const auto refused = [](const iovec*, int, std::int64_t) -> ssize_t {
        errno = ENOSPC;
        return -1;
    };
    EXPECT(transfer(std::span(&part, 1), 0, refused) == ENOSPC);
}

}  // namespace

int main() {
    start_watchdog();
    decode_anything();
    transfer_everything();
    return 0;
}
