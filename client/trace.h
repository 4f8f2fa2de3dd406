/* Traces, as `upager trace` and `upager run --trace` have them made. */
#pragma once

#include <jansson.h>

/* A new file, and no other: its descriptor, or -errno. */
int trace_create(const char *path);
/* Says so if records are missing. */
void trace_say_dropped(const json_t *answer);
