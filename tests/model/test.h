/* A run of the model test: main.c does it, choose.c says what is to be done. */
#pragma once

#include "rig.h"

#define LAST 24u /* operations that a failure shows */

struct options {
	uint64_t seed, ops, seconds;
	bool trace;
	struct rig_options rig;
};

struct test {
	const struct options *options;
	struct rig *rig;
	struct model model;
	struct rig_view view;
	struct seen before[PROCESSES];
	uint64_t random, number, done[OP_KINDS];
	struct op last[LAST];
	bool full; /* the swap file is too small for everything */
};

extern const char *const op_names[OP_KINDS];

struct op choose(struct test *test);
/* Moves its range to where it has an effect, if it needs a certain one. */
void adjust(const struct test *test, struct op *op);
bool crosses_seam(const struct test *test, const struct op *op); /* of two mappings that look alike */
