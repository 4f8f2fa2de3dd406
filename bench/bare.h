/*
 * The plainest pager that there can be, to measure by: a thread that reads one message of a
 * userfaultfd, does the one ioctl that answers it, and reads the next. No table, no checks, no
 * tier.
 *
 * Like upagerd it looks for the next message for a moment before it sleeps.
 */
#pragma once

#include <stddef.h>

struct bare;

/* Serves `length` bytes at `memory`, a private anonymous mapping, from now on. `contents`: as many
 * bytes that missing pages are copied from; NULL: they are zeros. 0 or -errno. */
int bare_new(char *memory, size_t length, const char *contents, struct bare **ret);

/* The next write to each page of the range is a fault. */
int bare_protect(struct bare *bare, char *start, size_t length);
