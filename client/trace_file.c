#include "trace_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

/* ---- records ---- */

int trace_file_open(struct trace_file *file, const char *path)
{
	int r;

	*file = (struct trace_file){.stream = fopen(path, "rbe")};
	if (!file->stream)
		return -errno;
	if (fread(&file->header, sizeof(file->header), 1, file->stream) != 1)
		return ferror(file->stream) ? -errno : -EBADMSG;
	r = trace_header_check(&file->header);
	return r < 0 ? r : trace_file_rewind(file);
}

int trace_file_rewind(struct trace_file *file)
{
	if (fseek(file->stream, (long)file->header.size, SEEK_SET) < 0)
		return -errno;
	file->state = (struct trace_state){.time = file->header.started};
	file->used = file->n = 0;
	file->offset = file->header.size;
	file->whole = false;
	return 0;
}

int trace_file_next(struct trace_file *file, struct trace_record *ret)
{
	ssize_t r;

	if (file->whole)
		return 0;
	if (file->n - file->used < TRACE_RECORD_MAX) {
		memmove(file->buffer, file->buffer + file->used, file->n - file->used);
		file->n -= file->used;
		file->used = 0;
		file->n += fread(file->buffer + file->n, 1, sizeof(file->buffer) - file->n,
				 file->stream);
		if (ferror(file->stream))
			return -EIO;
	}
	r = trace_decode(&file->state, file->buffer + file->used, file->n - file->used, ret);
	if (r <= 0)
		return (int)r;
	file->used += (size_t)r;
	file->offset += (uint64_t)r;
	file->whole = ret->kind == TRACE_END;
	return 1;
}

void trace_file_close(struct trace_file *file)
{
	if (file->stream)
		fclose(file->stream);
	file->stream = NULL;
}

/* ---- faults ---- */

/* What it waits for can only be told by a record about its page. */
static bool sleeps(const struct trace_fault *f)
{
	return f->decided && (f->outcome == TRACE_OUTCOME_major || f->outcome == TRACE_OUTCOME_parked);
}

static void end(struct trace_follow *follow, size_t i, uint64_t time, enum trace_end how)
{
	struct trace_fault fault = follow->faults[i];

	fault.ended = time;
	fault.end = how;
	follow->faults[i] = follow->faults[--follow->n];
	follow->ended(follow->context, &fault);
}

static struct trace_fault *find(struct trace_follow *follow, const struct trace_record *r)
{
	for (size_t i = 0; i < follow->n; i++) {
		struct trace_fault *f = &follow->faults[i];

		if (f->task == r->task && f->tid == r->tid && f->address == r->address)
			return f;
	}
	return NULL;
}

static int begin(struct trace_follow *follow, const struct trace_record *r)
{
	/* A thread has one fault at a time. */
	for (size_t i = follow->n; r->tid && i-- > 0;)
		if (follow->faults[i].task == r->task && follow->faults[i].tid == r->tid)
			end(follow, i, r->time, follow->faults[i].doubtful ? TRACE_CUT : TRACE_LEFT);
	if (follow->n == follow->capacity) {
		size_t capacity = follow->capacity ? 2 * follow->capacity : 64;
		void *faults = reallocarray(follow->faults, capacity, sizeof(*follow->faults));

		if (!faults)
			return -ENOMEM;
		follow->faults = faults;
		follow->capacity = capacity;
	}
	follow->faults[follow->n++] = (struct trace_fault){
		.task = r->task, .address = r->address, .begun = r->time, .tid = r->tid,
		.leaf = r->how, .access = (uint8_t)r->a};
	return 0;
}

static void decide(struct trace_follow *follow, const struct trace_record *r)
{
	struct trace_fault *f = find(follow, r);
	bool joined;

	if (!f)
		return;
	joined = f->decided && f->outcome == TRACE_OUTCOME_none;
	f->outcome = r->how;
	f->decided = r->time;
	if (joined || (f->outcome != TRACE_OUTCOME_none && !sleeps(f)))
		end(follow, (size_t)(f - follow->faults), r->time, TRACE_DONE);
}

static void wake(struct trace_follow *follow, const struct trace_record *r)
{
	for (size_t i = follow->n; i-- > 0;) {
		const struct trace_fault *f = &follow->faults[i];

		if (f->task == r->task && sleeps(f) && f->address >= r->address &&
		    bytes_to_pages(f->address - r->address) < r->pages)
			end(follow, i, r->time, TRACE_DONE);
	}
}

int trace_follow(struct trace_follow *follow, const struct trace_record *r)
{
	struct trace_fault *f;

	switch (r->kind) {
	case TRACE_FAULT:
		return begin(follow, r);
	case TRACE_WAIT:
		f = find(follow, r);
		if (f && !f->waited) {
			f->waited = r->time;
			f->wait = r->how;
		}
		return 0;
	case TRACE_OUTCOME:
		decide(follow, r);
		return 0;
	case TRACE_IN:
	case TRACE_WOKEN:
	case TRACE_COPIED:
		wake(follow, r);
		return 0;
	case TRACE_LOST:
		for (size_t i = 0; i < follow->n; i++)
			follow->faults[i].doubtful = true;
		return 0;
	case TRACE_GONE:
		for (size_t i = follow->n; i-- > 0;)
			if (follow->faults[i].task == r->task)
				end(follow, i, r->time, TRACE_DONE);
		return 0;
	default:
		return 0;
	}
}

void trace_follow_done(struct trace_follow *follow, uint64_t time)
{
	while (follow->n)
		end(follow, follow->n - 1, time, TRACE_CUT);
	free(follow->faults);
	follow->faults = NULL;
	follow->capacity = 0;
}

/* ---- names ---- */

static const char *name_of(const char *const *names, size_t n, unsigned i)
{
	return i < n && names[i] ? names[i] : "?";
}

const char *trace_kind_name(unsigned kind)
{
	static const char *const names[] = {
#define X(NAME, name, fields) [TRACE_##NAME] = #name,
		TRACE_KINDS(X)
#undef X
	};

	return name_of(names, ARRAY_SIZE(names), kind);
}

const char *trace_leaf_name(unsigned leaf)
{
	static const char *const names[] = {
#define X(name) #name,
		TRACE_LEAVES(X)
#undef X
	};

	return name_of(names, ARRAY_SIZE(names), leaf);
}

const char *trace_outcome_name(unsigned outcome)
{
	static const char *const names[] = {
		"none",
#define X(name) #name,
		TRACE_OUTCOMES(X)
#undef X
	};

	return name_of(names, ARRAY_SIZE(names), outcome);
}

const char *trace_access_name(uint64_t access)
{
	return access & TRACE_PROTECTED ? "wp" : access & TRACE_WRITES ? "write" : "read";
}

const char *trace_end_name(enum trace_end how)
{
	static const char *const names[] = {"done", "left", "cut"};

	return names[how];
}

const char *trace_wait_name(unsigned wait)
{
	return wait == TRACE_FOR_ROOM ? "room" : wait == TRACE_FOR_EVENT ? "event" : "?";
}
