// The switch's table of addresses over hours: how many a port may have, and that silence gives its places back.
#include "../../transport/native/forwarding_table.hpp"
#include "expect.hpp"

using namespace hvd::netif;

namespace {

constexpr std::uint32_t network = 3, port = 1;
constexpr std::int64_t start_s = 1000, silent_s = start_s + ForwardingTable::age_max_s + 1;

Address station(std::uint32_t number) {
    return {2, 0, static_cast<std::uint8_t>(number >> 16), static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number), 7};
}

/// How many of 64 stations from `first` on are known at a time.
std::uint32_t known(const ForwardingTable& table, std::uint32_t first, std::int64_t now_s) {
    std::uint32_t count = 0;
    for (std::uint32_t number = 0; number < ForwardingTable::learned_per_port_max; ++number) {
        count += table.find(network, station(first + number), 0, now_s) == port ? 1 : 0;
    }
    return count;
}

void learn(ForwardingTable& table, std::uint32_t first, std::int64_t now_s) {
    for (std::uint32_t number = 0; number < ForwardingTable::learned_per_port_max; ++number) {
        table.learn(network, station(first + number), 0, port, now_s);
    }
}

}  // namespace

int main() {
    ForwardingTable table;
    table.expect(port);
    learn(table, 0, start_s);
    learn(table, 1000, start_s);
    const std::uint32_t before = known(table, 0, start_s);
    EXPECT(before > 32 && before <= 64 && known(table, 1000, start_s) <= 64 - before);  // some pushed others out of their set
    EXPECT(known(table, 0, silent_s) == 0);
    learn(table, 2000, silent_s);
    EXPECT(known(table, 2000, silent_s) > 60);
    table.forget(port);
    EXPECT(known(table, 2000, silent_s) == 0);
    learn(table, 0, silent_s);
    EXPECT(known(table, 0, silent_s) > 60);
    return 0;
}
