// Memory as two domains share it: whole pages between two that cannot be touched. What lies behind the size that was asked for,
// in the last page, is poisoned where AddressSanitizer is there to see it.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <span>

#include "../../../transport/native/layouts.hpp"
#include "../../native/expect.hpp"
#include "input.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HVD_FUZZ_ASAN
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define HVD_FUZZ_ASAN
#endif

#if defined(HVD_FUZZ_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace fuzz {

class SharedMemory {
public:
    explicit SharedMemory(std::size_t bytes) : bytes_(bytes), mapped_((bytes + hvd::page_size - 1) / hvd::page_size * hvd::page_size) {
        void* at = ::mmap(nullptr, mapped_ + 2 * hvd::page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(at != MAP_FAILED);
        at_ = static_cast<std::byte*>(at) + hvd::page_size;
        EXPECT(::mprotect(at_, mapped_, PROT_READ | PROT_WRITE) == 0);
#if defined(HVD_FUZZ_ASAN)
        ASAN_POISON_MEMORY_REGION(at_ + bytes_, mapped_ - bytes_);
#endif
    }

    ~SharedMemory() {
#if defined(HVD_FUZZ_ASAN)
        ASAN_UNPOISON_MEMORY_REGION(at_, mapped_);
#endif
        ::munmap(at_ - hvd::page_size, mapped_ + 2 * hvd::page_size);
    }

    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    std::span<std::byte> bytes() const { return {at_, bytes_}; }

    /// The peer writes up to 16 bytes anywhere.
    void scribble(Input& input) {
        const std::size_t at = input.number<std::uint16_t>() % bytes_;
        input.bytes(bytes().subspan(at, std::min<std::size_t>(1 + input.below(16), bytes_ - at)));
    }

private:
    std::size_t bytes_;
    std::size_t mapped_;
    std::byte* at_;
};

}  // namespace fuzz
