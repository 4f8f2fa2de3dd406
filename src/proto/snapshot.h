/*
 * The file that a snapshot is: header, runs, and from header.data on the pages, page aligned, so that
 * each run can be mapped; then what was lost. Native integers. The magic is written last: without it
 * the file is not whole.
 *
 * Of all memory, the file has what was not empty, page after page. Of a range it is one run, that has all
 * of it: what was empty is a hole.
 */
#pragma once

#include <stdint.h>

#define SNAPSHOT_MAGIC   0x31746f6873706e73ull /* "snpshot1" */
#define SNAPSHOT_VERSION 1u

struct snapshot_header {
	uint64_t magic;
	uint32_t version;
	int32_t pid;
	uint64_t n_runs;  /* struct snapshot_run, from the header on */
	uint64_t n_pages;
	uint64_t data;    /* offset of the first page, bytes */
	uint64_t n_lost;  /* struct snapshot_lost, from `lost` on */
	uint64_t lost;    /* offset, bytes */
	int64_t time;     /* of the moment: nanoseconds since 1970 */
};

/* What is in no run was empty: zeros. Sorted by address, disjoint. */
struct snapshot_run {
	uint64_t address, length, offset; /* bytes; offset from the file's beginning */
};

/* Pages that the task discarded before they were copied, or that could not be read: zeros here. */
struct snapshot_lost {
	uint64_t offset, length; /* bytes, of the file */
};
