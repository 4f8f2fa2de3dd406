/* Sizes as people write them: 4096, 64K, 256M, 1.5G, 2T; suffixes are binary, case is ignored. */
#pragma once

#include <stdint.h>

/* => *ret in bytes. -EINVAL: not a size; -ERANGE: beyond 2^63 - 1. */
int size_parse(const char *text, uint64_t *ret);

/* Three significant digits and a binary unit: "256 MiB", "1.5 GiB", "0 B". Returns buffer. */
const char *size_format(uint64_t bytes, char buffer[static 24]);
