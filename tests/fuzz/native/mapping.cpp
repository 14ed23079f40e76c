// Extents that a peer handed over: whatever the descriptor is, it is mapped and can be touched, or is refused without a signal.
//
// Pages that were gathered from mappings are the same pages once more, in the order asked for, and outlive the mappings.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "../../../transport/native/pages.hpp"
#include "../../native/expect.hpp"
#include "input.hpp"

namespace {

using hvd::Mapping;
using hvd::page_size;
using fuzz::Input;

/// A memfd of some size and some seals, a descriptor of something else, or none.
int untrusted_descriptor(Input& input) {
    switch (input.below(8)) {
        case 0: return -1;
        case 1: return ::open("/dev/null", O_RDWR | O_CLOEXEC);
        case 2: return ::open("/dev/zero", O_RDWR | O_CLOEXEC);
        default: break;
    }
    const int descriptor = ::memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    EXPECT(descriptor >= 0);
    EXPECT(::ftruncate(descriptor, input.number<std::uint16_t>() % (5 * page_size)) == 0);
    constexpr int seals[] = {0, F_SEAL_SHRINK, F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_SHRINK | F_SEAL_WRITE, F_SEAL_GROW, F_SEAL_SHRINK | F_SEAL_SEAL};
    EXPECT(::fcntl(descriptor, F_ADD_SEALS, seals[input.below(std::size(seals))]) == 0);
    return descriptor;
}

std::unique_ptr<Mapping> mapped(Input& input) {
    const int descriptor = untrusted_descriptor(input);
    const std::size_t bytes = input.flag() ? input.below(6) * page_size : input.number<std::uint64_t>();
    std::unique_ptr<Mapping> mapping;
    try {
        mapping = std::make_unique<Mapping>(descriptor, bytes, input.flag());
    } catch (const hvd::LocalError&) {
    } catch (const hvd::PeerFault&) {
    }
    if (descriptor >= 0) {
        ::ftruncate(descriptor, input.number<std::uint16_t>());  // its owner goes on trying
        ::close(descriptor);
    }
    return mapping;
}

void touch(const Mapping& mapping, std::byte mark) {
    for (std::size_t at = 0; at < mapping.bytes(); at += page_size / 2) {
        const std::byte there = *const_cast<const volatile std::byte*>(mapping.data() + at);
        if (mapping.writable()) {
            mapping.data()[at] = there ^ mark;
        }
    }
}

void gather(Input& input, std::vector<std::unique_ptr<Mapping>>& mappings) {
    std::vector<std::byte*> pages;
    for (std::size_t count = input.below(9); count != 0 && !mappings.empty(); --count) {
        const Mapping& from = *mappings[input.below(mappings.size())];
        if (from.writable() && from.bytes() >= page_size) {
            pages.push_back(from.data() + input.below(from.bytes() / page_size) * page_size);
            *pages.back() = static_cast<std::byte>(pages.size());
        }
    }
    std::vector<std::byte> first_bytes;
    for (const std::byte* page : pages) {
        first_bytes.push_back(*page);
    }
    try {
        Mapping gathered{std::span<std::byte* const>(pages)};
        if (input.flag()) {
            mappings.clear();
        }
        for (std::size_t i = 0; i < pages.size(); ++i) {
            EXPECT(gathered.data()[i * page_size] == first_bytes[i]);
        }
        touch(gathered, std::byte{0x5a});
    } catch (const hvd::LocalError&) {
        EXPECT(pages.empty());
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    std::vector<std::unique_ptr<Mapping>> mappings;
    for (int steps = 0; input.more() && steps < 32; ++steps) {
        if (auto mapping = mapped(input)) {
            touch(*mapping, std::byte{0x11});
            mappings.push_back(std::move(mapping));
        }
        gather(input, mappings);
    }
    return 0;
}
