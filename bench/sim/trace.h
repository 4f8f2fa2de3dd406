/*
 * Traces: the order in which a program touches its pages. Made here, or read from a file.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum touch { TOUCH_READ, TOUCH_WRITE, TOUCH_DISCARD };

struct trace {
	uint32_t *touches; /* page << 2 | enum touch */
	uint64_t n, capacity;
	uint64_t warm;     /* what is before it fills memory, and is not measured */
	uint64_t discards; /* among the touches; all are measured */
	uint32_t n_pages;  /* pages are numbered from 0 */
};

static inline uint32_t trace_page(const struct trace *trace, uint64_t i)
{
	return trace->touches[i] >> 2;
}

static inline bool trace_is_write(const struct trace *trace, uint64_t i)
{
	return (trace->touches[i] & 3) == TOUCH_WRITE;
}

/* No touch: the program needs the page's content no longer, and the next touch finds zeros. */
static inline bool trace_is_discard(const struct trace *trace, uint64_t i)
{
	return (trace->touches[i] & 3) == TOUCH_DISCARD;
}

void trace_done(struct trace *trace);
/* Aborts when there is no memory: so does everything here. */
void trace_add(struct trace *trace, uint32_t page, bool write);
void trace_discard(struct trace *trace, uint32_t page);

struct pattern {
	const char *name, *meaning;
	void (*make)(struct trace *trace, uint32_t limit);
};
extern const struct pattern patterns[]; /* ends with name NULL */

/* Fills memory, then touches it in the pattern's order, sized after a limit in pages. */
void trace_make(struct trace *ret, const struct pattern *pattern, uint32_t limit);

/* Text: an address a line, decimal or 0x…, "w" after it if it is a write; # begins a comment. Or
 * binary, after the 8 bytes "pagetrc1": little-endian 64-bit words, the address with bit 0 set if it is
 * a write. Pages are numbered by address; gaps are kept, if short, since neighbours matter.
 * -errno, -EINVAL; *ret_line is where the text is wrong. */
int trace_read(const char *path, struct trace *ret, uint64_t *ret_line);
