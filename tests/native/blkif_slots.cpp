// The decoder of untrusted slots under the sanitizers: random and nearly valid requests, every byte that comes out is used.
#include <cstring>
#include <memory>
#include <random>

#include "../../transport/native/blkif.hpp"
#include "expect.hpp"

using namespace hvd::blkif;

int main() {
    constexpr std::size_t pages = 3;
    constexpr std::uint32_t first_ref = 40;
    const auto memory = std::make_unique<std::byte[]>(pages * page_size);  // red zones on either side
    GrantMap grants;
    grants.add(first_ref, {memory.get(), pages * page_size}, true);
    const Decoder decoder({1000, false, 256}, grants);
    std::mt19937_64 source(7);
    unsigned whole = 0;
    for (int round = 0; round < 200'000; round++) {
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
        const Checked checked = decoder.decode(slot);
        if (checked.status != okay || checked.missing) {
            continue;
        }
        for (const auto& part : checked.memory) {
            for (auto& byte : part) {
                byte ^= std::byte{0x5a};
            }
            whole += part.size() != 0;
        }
    }
    EXPECT(whole > 1000);
    return 0;
}
