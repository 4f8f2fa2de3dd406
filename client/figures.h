/* A group's figures, for a person. */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#define FIGURES_PAGE 4096 /* bytes; what a page counter counts */

/* Field `name` of a Group or Task, and one of its counters; 0 if there is none. */
int64_t figure(const json_t *object, const char *name);
int64_t figure_counter(const json_t *object, const char *name);

/* Evicted pages that a program touched again, and first touches that the daemon answered. */
int64_t figure_faults(const json_t *object);

/* The small table at the end of a run. */
void figures_print_run(const json_t *group, double seconds, FILE *stream);

/* The figures of each compressed memory among the tiers. */
void figures_print_compressed(const json_t *tiers, FILE *stream);

/* Every figure of a group or a task, counters with their meaning. */
void figures_print_all(const json_t *object, FILE *stream);
