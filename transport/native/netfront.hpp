// A netif frontend's queue, its sending and its receiving half, across the deaths of backends.
#pragma once

#include <string>
#include <utility>

#include "netfront_rx.hpp"
#include "netfront_tx.hpp"

namespace hvd::netif {

class FrontQueue : public Transmitter, public Receiver {
public:
    static constexpr std::uint32_t pages = 2 * ring_slots;

    /// `memory`: the pages of all Tx ids, then all Rx buffers, granted as `first_ref`, `first_ref` + 1, ...
    FrontQueue(std::span<std::byte> memory, std::uint32_t first_ref)
        : Transmitter(checked(memory).first(ring_slots * page_size), first_ref),
          Receiver(memory.subspan(ring_slots * page_size), first_ref + ring_slots) {}

    /// A backend serves these rings, which are empty: what was not answered goes into the one, every free buffer into the other.
    void attach(Ring& tx, Ring& rx, Doorbell& tx_bell, Doorbell& rx_bell) {
        const bool fits = tx.out_size() == tx_request_size && tx.in_size() == tx_response_size && rx.out_size() == rx_request_size &&
                          rx.in_size() == rx_response_size && tx.size() == ring_slots && rx.size() == ring_slots;
        if (!fits) {
            throw LocalError("a network frontend needs the fronts of rings of one page, with 12- and 4-byte slots and with 8-byte slots");
        }
        attach_tx(tx, tx_bell);
        attach_rx(rx, rx_bell);
    }

    /// The backend is dead and fenced: nobody uses any page.
    void detach() {
        fault_.clear();
        detach_tx();
        detach_rx();
    }

    bool attached() const { return has_tx(); }

    /// Takes in every answer and every packet there is; PeerFault when the backend broke the protocol.
    void collect() {
        check();
        if (attached()) {
            collect_answers();
            collect_packets();
        }
    }

    /// Every packet: answers are left to who needs room, and is woken for them.
    void collect_arrived() {
        check();
        collect_packets();
    }

    /// That the backend broke the protocol, found where nobody could be told: whoever asks next is.
    void note(const PeerFault& fault) { fault_ = fault.what(); }
    void check() {
        if (!fault_.empty()) {
            throw PeerFault(std::exchange(fault_, {}));
        }
    }

private:
    static std::span<std::byte> checked(std::span<std::byte> memory) {
        if (memory.size() != pages * page_size) {
            throw LocalError("a network queue has " + std::to_string(pages) + " pages");
        }
        return memory;
    }

    std::string fault_;
};

}  // namespace hvd::netif
