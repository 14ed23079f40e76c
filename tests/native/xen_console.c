/* Both ends of the console ring as plain functions over Xen's own struct and mask, for the differential test: the steps
 * are those that any user of io/console.h takes. */
#include <stddef.h>
#include <stdint.h>

#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()

#include <xen/io/console.h>

#define END(tag, written, taken)                                                                                      \
    unsigned tag##_write(struct xencons_interface *page, const char *bytes, unsigned count) {                         \
        XENCONS_RING_IDX cons = page->written##_cons, prod = page->written##_prod;                                    \
        unsigned done = 0;                                                                                            \
        xen_mb();                                                                                                     \
        while (done < count && prod - cons < sizeof(page->written))                                                   \
            page->written[MASK_XENCONS_IDX(prod++, page->written)] = bytes[done++];                                   \
        xen_wmb();                                                                                                    \
        page->written##_prod = prod;                                                                                  \
        return done;                                                                                                  \
    }                                                                                                                 \
    unsigned tag##_read(struct xencons_interface *page, char *bytes, unsigned limit) {                                \
        XENCONS_RING_IDX cons = page->taken##_cons, prod = page->taken##_prod;                                        \
        unsigned done = 0;                                                                                            \
        xen_rmb();                                                                                                    \
        while (done < limit && cons != prod)                                                                          \
            bytes[done++] = page->taken[MASK_XENCONS_IDX(cons++, page->taken)];                                       \
        xen_mb();                                                                                                     \
        page->taken##_cons = cons;                                                                                    \
        return done;                                                                                                  \
    }

END(front, out, in)
END(back, in, out)

size_t interface_size(void) { return sizeof(struct xencons_interface); }
size_t in_size(void) { return sizeof(((struct xencons_interface *)0)->in); }
size_t out_size(void) { return sizeof(((struct xencons_interface *)0)->out); }
size_t in_cons_at(void) { return offsetof(struct xencons_interface, in_cons); }
size_t in_prod_at(void) { return offsetof(struct xencons_interface, in_prod); }
size_t out_cons_at(void) { return offsetof(struct xencons_interface, out_cons); }
size_t out_prod_at(void) { return offsetof(struct xencons_interface, out_prod); }
