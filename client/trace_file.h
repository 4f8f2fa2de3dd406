/*
 * Reading traces (proto/trace.h): record by record, and what faults come to.
 *
 * A file may come from anywhere, and end anywhere.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "proto/trace.h"

struct trace_file {
	FILE *stream;
	struct trace_header header;
	struct trace_state state;
	uint8_t buffer[64 << 10];
	size_t used, n; /* bytes of the buffer */
	uint64_t offset; /* of the next record in the file: where it is wrong, if it is */
	bool whole;     /* its END has been read */
};

/* 0; -EBADMSG: it is no trace; -EPROTONOSUPPORT: of another version; or another -errno. => close it. */
int trace_file_open(struct trace_file *file, const char *path);
/* 1 and a record; 0: there is none any more; -EBADMSG: what comes is none; or another -errno. */
int trace_file_next(struct trace_file *file, struct trace_record *ret);
/* To the first record again. 0 or -errno: it cannot be read twice. */
int trace_file_rewind(struct trace_file *file);
void trace_file_close(struct trace_file *file);

enum trace_end {
	TRACE_DONE,
	TRACE_LEFT, /* for a signal: the thread faults anew */
	TRACE_CUT,  /* its end is not in the trace */
};

/* A fault, from the message to the moment from which the thread can go on. */
struct trace_fault {
	uint64_t task, address, begun, ended;
	uint64_t waited; /* when it first could not be answered; 0: it could */
	uint64_t decided; /* when it was answered; 0: it was not */
	uint32_t tid;
	uint8_t leaf, access, wait, outcome;
	bool doubtful; /* records were lost since it began */
	enum trace_end end;
};

struct trace_follow {
	struct trace_fault *faults; /* that have not ended; owned */
	size_t n, capacity;
	void (*ended)(void *context, const struct trace_fault *fault);
	void *context;
};

/* What the record ends is told, then forgotten. 0 or -ENOMEM. */
int trace_follow(struct trace_follow *follow, const struct trace_record *r);
/* The trace ends: all that have not ended are told as cut. */
void trace_follow_done(struct trace_follow *follow, uint64_t time);

const char *trace_kind_name(unsigned kind);
const char *trace_leaf_name(unsigned leaf);
const char *trace_outcome_name(unsigned outcome);
const char *trace_access_name(uint64_t access);
const char *trace_wait_name(unsigned wait);
const char *trace_end_name(enum trace_end end);

/* Forms of a trace. 0 or -errno; -EBADMSG: what comes before was written. */
typedef int trace_writer(struct trace_file *file, FILE *out);
trace_writer trace_write_text, trace_write_perfetto;
