/*
 * The pages of programs while a trace is read: a page is a task and an address there, and stays the same
 * page where the program moves it. Aborts when there is no memory, or for more than TRACE_PAGES_MAX pages.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trace.h"

struct known_page {
	uint64_t home;  /* number of the address where it was first seen */
	uint64_t asked; /* a touch, counted from 1, for which it has not come in yet; 0: none */
	uint32_t task;
	bool along;     /* it has come in unasked, and not been touched since as far as is known */
	bool before;    /* it had been used before anything that is known of it */
	bool live;      /* it has been touched, and not discarded since */
};

struct place;
struct inhabitants;

struct history {
	struct trace raw; /* of pages in the order in which they were first seen */
	struct known_page *pages;
	struct place *places;
	struct inhabitants *tasks;
	uint32_t *table; /* of places, by task and address */
	uint32_t n_pages, n_places, n_table;
	uint32_t n_tasks, n_inhabited, last_task; /* inhabited: that have a page, or had */
	size_t page_capacity, place_capacity, task_capacity;
};

void history_done(struct history *history);

/* Tasks as files number them become numbers from 0. */
uint32_t history_task(struct history *history, uint64_t id);
/* The page with that number of an address; pointers to pages hold until the next call of this. */
struct known_page *history_page(struct history *history, uint32_t task, uint64_t number);
/* NULL: no page is known to be there. */
struct known_page *history_known(struct history *history, uint32_t task, uint64_t number);
void history_touch(struct history *history, struct known_page *page, bool write);
/* => how many pages it was that were in use. */
uint64_t history_discard(struct history *history, uint32_t task, uint64_t first, uint64_t n);
/* They have not come along any more. */
void history_left(struct history *history, uint32_t task, uint64_t first, uint64_t n);
void history_move(struct history *history, uint32_t task, uint64_t from, uint64_t to, uint64_t n);

/* Pages are numbered task by task, by where they were first seen; gaps are kept, if short, since
 * neighbours matter. Those that had been used before come first, in this order, and are not measured.
 * -EFBIG: more than TRACE_PAGES_MAX, with the gaps. */
int history_trace(const struct history *history, struct trace *ret);
