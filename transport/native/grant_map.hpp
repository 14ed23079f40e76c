// A frontend's granted pages as its backend has them mapped: from grant ref to memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "layouts.hpp"

namespace hvd {

/// Memory in this process that a frontend may name by grant ref.
class GrantMap {
public:
    /// Pages from `memory` on are refs `ref`, `ref` + 1, ...; the caller keeps the memory mapped until `remove`.
    void add(std::uint32_t ref, std::span<std::byte> memory, bool writable) { runs_[ref] = {memory, writable}; }
    void remove(std::uint32_t ref) { runs_.erase(ref); }
    void clear() { runs_.clear(); }

    /// The page of a ref, if it is mapped (and writable, where that is needed).
    std::optional<std::byte*> page(std::uint32_t ref, bool for_writing, bool& forbidden) const {
        auto run = runs_.upper_bound(ref);
        if (run == runs_.begin()) {
            return std::nullopt;
        }
        --run;
        const std::size_t offset = static_cast<std::size_t>(ref - run->first) * page_size;
        if (offset + page_size > run->second.memory.size()) {
            return std::nullopt;
        }
        forbidden = for_writing && !run->second.writable;
        return run->second.memory.data() + offset;  // in bounds: the whole page lies inside the run
    }

private:
    struct Run {
        std::span<std::byte> memory;
        bool writable;
    };
    std::map<std::uint32_t, Run> runs_;
};

}  // namespace hvd
