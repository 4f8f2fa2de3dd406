/*
 * Behaviour programs: each does one thing that programs do, with more memory than its limit.
 *
 * `behave NAME [MIB]` fills MIB mebibytes with a pattern, reads it twice, does NAME, checks every
 * byte and prints "ok NAME". Wrong bytes end it with status 1 and a line on stderr; 77 = cannot be
 * tried here, with the reason.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#define PAGE  4096ul
#define WORDS (PAGE / 8)
#define MIB   (1ul << 20)

/* Page i holds what follows from (salt + i); salt 0 = zeros. */
struct area {
	char *at;
	size_t pages;
	uint64_t salt;
};

extern const char *subject; /* the name on the command line */
extern size_t mebibytes;    /* the second argument */
extern char *self;          /* path of this program */

struct area area_map(size_t pages, uint64_t salt); /* mapped, nothing written */
struct area area_new(size_t pages, uint64_t salt); /* filled */
uint64_t page_word(uint64_t salt, unsigned i);
bool page_is(const void *at, uint64_t salt);
void page_fill(void *at, uint64_t salt);
void page_check(const void *at, uint64_t salt);
void area_fill(const struct area *a);
void area_check(const struct area *a);
void area_refill(struct area *a, uint64_t salt); /* another pattern */
struct area area_part(const struct area *a, size_t from, size_t pages);
void *page_at(const struct area *a, size_t i);
/* The usual start: an area of `mebibytes`, filled and read twice. */
struct area area_start(void);

_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			wrong("%s:%d: %s: %m", __FILE__, __LINE__, #condition);                    \
	} while (0)

/* Waits for a child that must end with status 0. */
void await(pid_t pid);

struct behaviour {
	const char *name;
	void (*run)(void);
};
extern const struct behaviour memory_behaviours[], advice_behaviours[], process_behaviours[], thread_behaviours[],
	privilege_behaviours[], load_behaviours[], huge_behaviours[],
	hugetlb_behaviours[];
