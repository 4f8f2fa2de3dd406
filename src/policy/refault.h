/*
 * Refaults: a page that is asked for again after little else has left belongs to what is worked with.
 * Its distance is how many pages have left since it did (the kernel's mm/workingset.c).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* `evictions`: a clock that counts pages that leave, at its refault and when it left (it may have
 * wrapped). resident: pages of the group. */
bool refault_activates(uint32_t evictions, uint32_t shadow, uint64_t resident);
