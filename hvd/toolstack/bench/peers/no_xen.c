/* Stands in for Xen under Debian's xenstored and oxenstored, so that they run beside hvd's store and can be asked what
 * they answer, and how fast.
 *
 * Preloaded, it replaces what they call of libxenctrl, libxenevtchn and libxengnttab. A domain is a file NO_XEN/DOMID, one
 * page long: it exists while the file does, and the page is its ring. NO_XEN/events is a FIFO: a 32-bit port written
 * there is an event for the daemon, and a domain's port has the domain's number. The daemon's own notifications go
 * nowhere, since whoever waits for an answer polls the ring. What the kernel says of dom0 in /proc/xen is in
 * NO_XEN/xsd_port and NO_XEN/xsd_kva, where oxenstored's configuration names them. oxenstored wants to raise its limits,
 * which a container forbids: it may think so. xenstored.py beside this file runs both.
 *
 * cc -shared -fPIC -o no_xen.so no_xen.c; NO_XEN=DIR LD_PRELOAD=no_xen.so xenstored -N
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

static int events = -1;

static int open_in_dir(const char *name, int flags)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("NO_XEN"), name);
    return open(path, flags | O_CLOEXEC);
}

static int open_domain(uint32_t domid)
{
    char name[16];
    snprintf(name, sizeof name, "%u", domid);
    return open_in_dir(name, O_RDWR);
}

int open64(const char *path, int flags, ...)
{
    static int (*next)(const char *, int, int);
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "open64");
    if (strncmp(path, "/proc/xen/xsd_", 14) == 0)
        return open_in_dir(strrchr(path, '/') + 1, flags);
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    return next(path, flags, mode);
}

int open(const char *path, int flags, ...) __attribute__((alias("open64")));

int setrlimit(int resource, const void *limit)
{
    (void)resource, (void)limit;
    return 0;
}

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger, unsigned flags)
{
    (void)logger, (void)dombuild_logger, (void)flags;
    return (xc_interface *)&events;
}

int xc_interface_close(xc_interface *xch)
{
    (void)xch;
    return 0;
}

/* The real one finds the first domain from a number on; xenstored asks for one and looks whose number it got. */
int xc_domain_getinfo(xc_interface *xch, uint32_t first_domid, unsigned int max_doms, xc_dominfo_t *info)
{
    (void)xch;
    memset(info, 0, sizeof *info * max_doms);
    if (first_domid != 0) {
        int fd = open_domain(first_domid);
        if (fd < 0)
            return 0;
        close(fd);
    }
    info->domid = first_domid;
    info->running = 1;
    return 1;
}

xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned int flags)
{
    (void)logger, (void)flags;
    events = open_in_dir("events", O_RDWR);
    return events < 0 ? NULL : (xenevtchn_handle *)&events;
}

xenevtchn_handle *xenevtchn_fdopen(xentoollog_logger *logger, int fd, unsigned open_flags)
{
    (void)fd;
    return xenevtchn_open(logger, open_flags);
}

/* oxenstored's collector of garbage closes a handle; the one there is stays open. */
int xenevtchn_close(xenevtchn_handle *xce)
{
    (void)xce;
    return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
    (void)xce;
    return events;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote_port)
{
    (void)xce, (void)remote_port;
    return (xenevtchn_port_or_error_t)domid;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned int virq)
{
    (void)xce, (void)virq;
    return 32767;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
    uint32_t port;
    (void)xce;
    return read(events, &port, sizeof port) == sizeof port ? (xenevtchn_port_or_error_t)port : -1;
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

xengnttab_handle *xengnttab_open(xentoollog_logger *logger, unsigned open_flags)
{
    (void)logger, (void)open_flags;
    return (xengnttab_handle *)&events;
}

int xengnttab_close(xengnttab_handle *xgt)
{
    (void)xgt;
    return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t nr_grants)
{
    (void)xgt, (void)nr_grants;
    return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
    (void)xgt, (void)ref;
    int fd = open_domain(domid);
    if (fd < 0)
        return NULL;
    void *page = mmap(NULL, 4096, prot, MAP_SHARED, fd, 0);
    close(fd);
    return page == MAP_FAILED ? NULL : page;
}

int xengnttab_unmap(xengnttab_handle *xgt, void *start_address, uint32_t count)
{
    (void)xgt;
    return munmap(start_address, (size_t)count * 4096);
}
