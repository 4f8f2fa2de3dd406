/*
 * Refaults: a page that is asked for again after little else has left belongs to what is worked with.
 * Its distance is how many pages have left since it did (the kernel's mm/workingset.c).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* `evictions`: a clock that counts pages that leave, now and when the page left (its shadow); it may
 * have wrapped. */
uint32_t refault_distance(uint32_t evictions, uint32_t shadow);

/* Would it not have left with so much more memory? */
bool refault_activates(uint64_t distance, uint64_t pages);
