// The system calls that a sandbox is made of, one function each: mounts, capabilities, Landlock, seccomp. What to do with them
// is said elsewhere. Each returns 0 or more, or -errno. All are for a process that has one thread: capabilities and Landlock
// belong to the calling thread.
#pragma once

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace hvd::sandbox {

// Younger than the headers of Debian 12's libc, or not in them at all; the numbers are one for every architecture.
inline constexpr long sys_open_tree = 428, sys_move_mount = 429, sys_mount_setattr = 442;
inline constexpr long sys_landlock_create_ruleset = 444, sys_landlock_add_rule = 445, sys_landlock_restrict_self = 446;
inline constexpr unsigned open_tree_clone = 1, move_mount_f_empty_path = 4, at_recursive = 0x8000, at_empty_path = 0x1000;
inline constexpr int landlock_rule_path_beneath = 1;
inline constexpr unsigned landlock_create_ruleset_version = 1;

/// linux/mount.h's mount_attr and linux/landlock.h's attributes, as the kernel reads them.
struct MountAttributes {
    std::uint64_t set, clear, propagation, userns_fd;
};
struct LandlockRuleset {
    std::uint64_t fs, net, scoped;
};
struct __attribute__((packed)) LandlockPath {
    std::uint64_t access;
    std::int32_t parent_fd;
};
static_assert(sizeof(MountAttributes) == 32 && sizeof(LandlockRuleset) == 24 && sizeof(LandlockPath) == 12);

inline long result_of(long result) { return result < 0 ? -errno : result; }

/// Nothing mounted from here on is seen outside this mount namespace, nor the other way round.
inline long make_mounts_private() { return result_of(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr)); }

/// Nothing mounted from here on is seen outside this mount namespace; what those outside mount or unmount is, where they share it.
inline long make_mounts_followers() { return result_of(mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr)); }

inline long mount_tmpfs(const char* where, const char* options) {
    return result_of(mount("hvd", where, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options));
}

/// A new file system of a kind that is no device's: proc, devpts. Which PID namespace a proc shows is the caller's.
inline long mount_new(const char* kind, const char* where, const char* options) {
    return result_of(mount(kind, where, kind, MS_NOSUID | MS_NOEXEC, options));
}

/// A tmpfs in which programs may be written and run.
inline long mount_scratch(const char* where, const char* options) {
    return result_of(mount("scratch", where, "tmpfs", MS_NOSUID | MS_NODEV, options));
}

/// Leave the namespaces of these CLONE_NEW* flags for new ones.
inline long leave_namespaces(int flags) { return result_of(unshare(flags)); }

/// Go into a namespace of this CLONE_NEW* kind; into a PID namespace only those go whom we fork from here on.
inline long enter_namespace(int descriptor, int kind) { return result_of(setns(descriptor, kind)); }

/// Into the mount namespace behind `descriptor`, with what `root` is open at for our root directory. The namespace's own
/// would be another one where its first process had changed it.
inline long enter_mounts(int descriptor, int root) {
    if (setns(descriptor, CLONE_NEWNS) != 0 || fchdir(root) != 0 || chroot(".") != 0) {
        return -errno;
    }
    return 0;
}

/// A copy of what is mounted at `source` and below it, mounted nowhere yet: a descriptor.
inline long clone_tree(const char* source) {
    return result_of(syscall(sys_open_tree, AT_FDCWD, source, open_tree_clone | O_CLOEXEC | at_recursive));
}

/// Mounts such a copy over `target`, with MOUNT_ATTR_* `attributes` from the first moment on; what is mounted at its source
/// later is not seen there. It is used up if that worked.
/// `userns_fd`: translate owners as that user namespace maps them; -1: not.
inline long place_tree(int tree, const char* target, std::uint64_t attributes, int userns_fd) {
    constexpr std::uint64_t mount_attr_idmap = 0x00100000;
    MountAttributes wanted{attributes, 0, MS_PRIVATE, 0};
    if (userns_fd >= 0) {
        wanted.set |= mount_attr_idmap;
        wanted.userns_fd = static_cast<std::uint64_t>(userns_fd);
    }
    const long result = result_of(syscall(sys_mount_setattr, tree, "", at_empty_path | at_recursive, &wanted, sizeof wanted));
    return result != 0 ? result : result_of(syscall(sys_move_mount, tree, "", AT_FDCWD, target, move_mount_f_empty_path));
}

/// Mounts `source`, with what is mounted below it, over `target`.
inline long bind_mount(const char* source, const char* target, std::uint64_t attributes) {
    const long tree = clone_tree(source);
    if (tree < 0) {
        return tree;
    }
    const long result = place_tree(static_cast<int>(tree), target, attributes, -1);
    close(static_cast<int>(tree));
    return result;
}

inline long set_mount_attributes(const char* where, std::uint64_t attributes) {
    const MountAttributes wanted{attributes, 0, 0, 0};
    return result_of(syscall(sys_mount_setattr, AT_FDCWD, where, 0U, &wanted, sizeof wanted));
}

/// The file system mounted at `root` becomes all that there is; what was there before is let go of.
inline long enter_root(const char* root) {
    if (chdir(root) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0) {
        return -errno;
    }
    return result_of(chdir("/"));
}

/// Maps root to `owner` in the user namespace of a process, and opens it. The process is found in the /proc that is mounted,
/// whose PID namespace may not be ours: its descriptor's fdinfo says the number.
inline long user_namespace_of(int pidfd, unsigned owner) {
    std::array<char, 512> text{};
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/proc/self/fdinfo/%d", pidfd);
    const int info = open(path.data(), O_RDONLY | O_CLOEXEC);
    if (info < 0) {
        return -errno;
    }
    const ssize_t length = read(info, text.data(), text.size() - 1);
    close(info);
    const char* line = length > 0 ? std::strstr(text.data(), "\nPid:") : nullptr;
    const long pid = line == nullptr ? -1 : std::strtol(line + sizeof "\nPid:" - 1, nullptr, 10);
    if (pid <= 0) {
        return -ESRCH;
    }
    for (const char* map : {"uid_map", "gid_map"}) {
        std::snprintf(path.data(), path.size(), "/proc/%ld/%s", pid, map);
        const int length_of_line = std::snprintf(text.data(), text.size(), "0 %u 1", owner);
        const int file = open(path.data(), O_WRONLY | O_CLOEXEC);
        const ssize_t written = file < 0 ? -1 : write(file, text.data(), static_cast<std::size_t>(length_of_line));
        const int error = errno;
        if (file >= 0) {
            close(file);
        }
        if (written < 0) {
            return -error;
        }
    }
    std::snprintf(path.data(), path.size(), "/proc/%ld/ns/user", pid);
    return result_of(open(path.data(), O_RDONLY | O_CLOEXEC));
}

/// A user namespace that nobody lives in, for place_tree to translate owners by: root's files are `owner`'s there.
/// The process that it takes runs for a moment, in our memory, on a stack of its own, and does nothing.
inline long make_user_namespace(unsigned owner) {
    alignas(16) static std::array<std::byte, 16384> stack;
    int pidfd = -1;
    const auto sleep = [](void*) -> int {
        for (;;) {
            syscall(SYS_ppoll, nullptr, 0, nullptr, nullptr, 0);
        }
    };
    constexpr int flags = CLONE_VM | CLONE_NEWUSER | CLONE_PIDFD;  // no signal at its end
    if (clone(sleep, stack.data() + stack.size(), flags, nullptr, &pidfd) < 0) {
        return -errno;
    }
    const long result = user_namespace_of(pidfd, owner);
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
    siginfo_t ended{};
    waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &ended, WEXITED | __WALL);
    close(pidfd);
    return result;
}

inline long detach_mount(const char* where) { return result_of(umount2(where, MNT_DETACH)); }

inline long no_new_privileges() { return result_of(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

inline long set_dumpable(bool dumpable) { return result_of(prctl(PR_SET_DUMPABLE, dumpable ? 1 : 0, 0, 0, 0)); }

/// No program that is run later can have any capability but those in `kept`, a mask of 1 << CAP_*. Whoever has no privilege
/// now has nothing to drop, which the kernel says first (EPERM), and of a capability that there is not at last (EINVAL).
inline long drop_bounding_set(std::uint64_t kept) {
    for (unsigned long capability = 0; capability < 64; ++capability) {
        if ((kept >> capability & 1) == 0 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) {
            return errno == EPERM || errno == EINVAL ? 0 : -errno;
        }
    }
    return 0;
}

/// Of the capabilities that this thread has, those in `kept` stay.
inline long drop_capabilities(std::uint64_t kept) {
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
        return -errno;
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
    if (syscall(SYS_capget, &header, sets.data()) != 0) {
        return -errno;
    }
    for (std::size_t word = 0; word < sets.size(); ++word) {
        auto& set = sets.at(word);
        set.permitted &= static_cast<std::uint32_t>(kept >> 32 * word);
        set.effective = set.permitted;
        set.inheritable = 0;
    }
    return result_of(syscall(SYS_capset, &header, sets.data()));
}

/// Whether this thread may use a capability: CAP_*.
inline long has_capability(unsigned capability) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
    if (syscall(SYS_capget, &header, sets.data()) != 0) {
        return -errno;
    }
    return sets.at(capability / 32).effective >> capability % 32 & 1;
}

inline long landlock_abi() {
    return result_of(syscall(sys_landlock_create_ruleset, nullptr, std::size_t{0}, landlock_create_ruleset_version));
}

/// `size`: how much of the attributes this kernel's version knows.
inline long landlock_create(std::uint64_t fs, std::uint64_t net, std::uint64_t scoped, std::size_t size) {
    const LandlockRuleset wanted{fs, net, scoped};
    return result_of(syscall(sys_landlock_create_ruleset, &wanted, size < sizeof wanted ? size : sizeof wanted, 0U));
}

inline long landlock_allow(int ruleset, const char* path, std::uint64_t access) {
    const int directory = open(path, O_PATH | O_CLOEXEC);
    if (directory < 0) {
        return -errno;
    }
    const LandlockPath rule{access, directory};
    const long result = result_of(syscall(sys_landlock_add_rule, ruleset, landlock_rule_path_beneath, &rule, 0U));
    close(directory);
    return result;
}

inline long landlock_restrict(int ruleset) { return result_of(syscall(sys_landlock_restrict_self, ruleset, 0U)); }

/// A filter as libseccomp exports it: an array of sock_filter. From here on every system call goes through it.
inline long seccomp_install(const std::byte* program, std::size_t bytes) {
    constexpr std::size_t instructions_max = 4096;  // BPF_MAXINSNS
    if (bytes == 0 || bytes % sizeof(sock_filter) != 0 || bytes > instructions_max * sizeof(sock_filter)) {
        return -EINVAL;
    }
    static std::array<sock_filter, instructions_max> filter;
    std::memcpy(filter.data(), program, bytes);
    const sock_fprog wanted{static_cast<unsigned short>(bytes / sizeof(sock_filter)), filter.data()};
    return result_of(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &wanted));
}

}  // namespace hvd::sandbox
