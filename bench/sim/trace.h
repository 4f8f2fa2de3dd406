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
#define TRACE_PAGES_MAX (1u << 30)

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
/* Touch i, that of a read or a write, was a write. */
void trace_write(struct trace *trace, uint64_t i);

struct pattern {
	const char *name, *meaning;
	void (*make)(struct trace *trace, uint32_t limit);
};
extern const struct pattern patterns[]; /* ends with name NULL */

/* Fills memory, then touches it in the pattern's order, sized after a limit in pages. */
void trace_make(struct trace *ret, const struct pattern *pattern, uint32_t limit);

/* What a recording of `upager trace` says of itself, and how it ends. */
struct recording {
	uint64_t limit;     /* pages: the largest that it was made under; 0: none is told */
	uint64_t tasks;
	uint64_t faults;    /* touches that were faults */
	uint64_t along;     /* … of pages that came in with them */
	uint64_t discarded; /* pages */
	uint64_t lost;      /* records that had no room */
	uint64_t offset;    /* bytes: where it ends, or where it is wrong */
	bool whole;
};

struct source {
	enum { SOURCE_TEXT, SOURCE_BINARY, SOURCE_RECORDING } kind;
	uint64_t line; /* where a text is wrong; 0: it is not */
	struct recording recording;
};

/* Text: an address a line, decimal or 0x…, "w" after it if it is a write; # begins a comment. Or
 * binary, after the 8 bytes "pagetrc1": little-endian 64-bit words, the address with bit 0 set if it is
 * a write. Or a recording. 0; -EINVAL: the text is wrong; or as trace_file.h says, where -EBADMSG is
 * damage; or another -errno. *ret_source is always told. */
int trace_read(const char *path, struct trace *ret, struct source *ret_source);
