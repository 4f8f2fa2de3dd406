/* Internal to the model: one operation, while it is worked out. */
#pragma once

#include "model.h"

#define RESIDENT	(BIT(PRESENT) | BIT(PRESENT_WP) | BIT(CLEAN) | BIT(CLEAN_WP))
#define EVICTED		(BIT(SAME) | BIT(STANDBY) | BIT(SWAPPED))
#define EMPTY		(BIT(UNTOUCHED) | BIT(STALE))
#define IS(state, mask) (1u << (state) & (mask))

/* What one operation is worked out with. */
struct step {
	struct model *m;
	const struct op *op;
	const struct outcome *outcome;
	const struct seen *before; /* of the process that does it */
	struct model_page *pages;
	uint32_t *states;
	struct expected *e;
};

/* So much may an outcome move, on top of what is allowed already. */
void may(struct step *step, enum outcome_name name, uint64_t least, uint64_t most);
bool forbids(const struct model_page *page, bool write);
void set_zero(struct model_page *page);
/* Resident states that a page which came from a slot may have. */
uint32_t from_slot(const struct model *model, bool write);

/* ---- step_touch.c. Each returns NULL, or why the outcome cannot be ---- */
const char *step_touch(struct step *step);
const char *step_kernel_touch(struct step *step, const void *file);
const char *step_populate(struct step *step, bool write);

/* ---- step_map.c ---- */
const char *step_advice(struct step *step);
const char *step_unmap(struct step *step);
const char *step_map(struct step *step);
const char *step_move(struct step *step);
const char *step_resize(struct step *step);
const char *step_attribute(struct step *step);
const char *step_fork(struct step *step);
