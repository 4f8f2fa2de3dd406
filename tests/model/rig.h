/*
 * The rig: a real pager in this process, a real client with the real shim and agents, and a look at
 * both that disturbs nothing: on the worker's own thread, when nothing is under way.
 *
 * One thread uses it. Functions return NULL, or what went wrong.
 */
#pragma once

#include "model.h"

struct rig;

struct rig_options {
	const char *client, *preload; /* paths */
	uint32_t slots;		      /* of the swap file */
	unsigned error_every, delay_us, readahead;
	bool clean_wp;
};

/* What was seen of one process, and the content of its pages, wherever they rest. */
struct rig_view {
	struct seen seen[PROCESSES];
	unsigned char (*bytes[PROCESSES])[PAGE];
	bool known[PROCESSES][ARENA_PAGES]; /* bytes[] says what the page holds */
	uint64_t seams[ARENA_PAGES / 64];   /* of the program: a VMA begins at this page */
	uint64_t child_seams[ARENA_PAGES / 64];
};

const char *rig_start(const struct rig_options *options, struct rig **ret);
/* NULL is fine. */
void rig_end(struct rig *rig);

/* One operation of a process, or of the limit. */
const char *rig_do(struct rig *rig, const struct op *op, struct outcome *ret);
const void *rig_file_page(const struct rig *rig, uint32_t page);
/* Waits until nothing is under way, checks what must hold then, and says what it has seen. */
const char *rig_look(struct rig *rig, struct rig_view *ret);

/* Nothing leaves; all that can leaves; `pages` of what is there leave. */
void rig_room(struct rig *rig);
void rig_no_room(struct rig *rig);
void rig_less_room(struct rig *rig, uint32_t pages);
/* Spoils the slot that the page rests in, if it rests in one. */
void rig_spoil(struct rig *rig, uint32_t process, uint32_t page);
/* Counters of both processes, for the summary. */
void rig_counters(const struct rig *rig, struct counters *ret);
