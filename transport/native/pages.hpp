// A mapping of an extent (a sealed memfd) that cannot fault: its size and seal are checked before a byte is touched.
//
// Python's own mmap keeps a duplicate of the descriptor for as long as it lives; a domain maps thousands of extents, so
// this one keeps none.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>

#include "faults.hpp"
#include "layouts.hpp"

namespace hvd {

class Mapping {
public:
    Mapping(int fd, std::size_t bytes, bool writable) : bytes_(bytes), writable_(writable) {
        struct stat file {};
        if (bytes == 0 || ::fstat(fd, &file) != 0) {
            throw LocalError("descriptor " + std::to_string(fd) + ": nothing to map");
        }
        if (file.st_size < 0 || static_cast<std::size_t>(file.st_size) < bytes) {
            throw PeerFault("an extent said to hold " + std::to_string(bytes) + " bytes holds " + std::to_string(file.st_size));
        }
        const int seals = ::fcntl(fd, F_GET_SEALS);
        if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
            throw PeerFault("an extent is not sealed against shrinking: touching it could raise SIGBUS");
        }
        void* at = ::mmap(nullptr, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) {
            throw LocalError(std::string("an extent cannot be mapped ") + (writable ? "for writing: " : "for reading: ") +
                             std::strerror(errno));
        }
        at_ = static_cast<std::byte*>(at);
    }

    /// Whole pages of other mappings that can be written, once more: in this order, without gaps. They outlive their mappings.
    explicit Mapping(std::span<std::byte* const> pages) : bytes_(pages.size() * page_size), writable_(true) {
        void* at = bytes_ == 0 ? MAP_FAILED : ::mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) {
            throw LocalError("there is no room for " + std::to_string(pages.size()) + " pages beside each other");
        }
        at_ = static_cast<std::byte*>(at);
        for (std::size_t i = 0; i < pages.size(); ++i) {
            constexpr std::size_t once_more = 0;  // mremap of so many bytes of a shared mapping leaves the old one where it is
            if (::mremap(pages[i], once_more, page_size, MREMAP_MAYMOVE | MREMAP_FIXED, at_ + i * page_size) == MAP_FAILED) {
                const std::string reason = std::strerror(errno);
                unmap();
                throw LocalError("page " + std::to_string(i) + " cannot be mapped once more: " + reason);
            }
        }
    }

    ~Mapping() { unmap(); }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    std::byte* data() const { return at_; }
    std::size_t bytes() const { return bytes_; }
    bool writable() const { return writable_; }

    /// Idempotent. Refused while somebody holds a view, who would otherwise touch memory that is no longer ours.
    void close() {
        if (views != 0) {
            throw LocalError("a mapping cannot be closed: " + std::to_string(views) + " views of it are in use");
        }
        unmap();
    }

    std::size_t views = 0;

private:
    void unmap() {
        if (at_ != nullptr) {
            ::munmap(at_, bytes_);
            at_ = nullptr;
        }
    }

    std::byte* at_ = nullptr;
    std::size_t bytes_;
    bool writable_;
};

}  // namespace hvd
