// Whether others read a file or open it (inotify), for whoever does work that is only for them.
#pragma once

#include <sys/inotify.h>

#include <cerrno>

namespace hvd {

/// A descriptor that does not block, or -errno.
inline int inotify_descriptor() {
    const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/// The number by which events name the file of this path, or -errno.
inline int watch_readers(int fd, const char* path) {
    const int number = ::inotify_add_watch(fd, path, IN_ACCESS | IN_OPEN);
    return number < 0 ? -errno : number;
}

/// 0, or -errno.
inline int unwatch_readers(int fd, int number) { return ::inotify_rm_watch(fd, number) == 0 ? 0 : -errno; }

}  // namespace hvd
