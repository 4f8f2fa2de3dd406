/*
 * Traces: the ring, the file, and life. What is put into them: trace_put.c.
 *
 * The ring holds bytes as they go to the file. One write is under way at a time, from where the last one
 * ended: so the file is a beginning of the trace whatever happens. A file that takes nothing makes the ring
 * full, and records are lost until it takes something again; at the end it is waited for, but not for ever.
 */
#include "pager/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/mail.h"

#define RING        (4u << 20) /* bytes; some 400,000 records */
#define RESERVE     (4 * TRACE_RECORD_MAX) /* for what ends a gap, or the trace */
#define WRITE_MIN   (64u << 10) /* bytes that are worth a write */
#define WRITE_MAX   (256u << 10) /* bytes of one: it may be done at once, on our time */
#define WRITE_EVERY (100 * MS)  /* else */
#define STUCK_AFTER (5000 * MS) /* at the end */
#define CLOSE_MAX   (1000 * MS)
#define CLOSE_STEP  (10 * MS)

struct trace {
	LIST_ENTRY(trace) link; /* of the worker */
	struct worker *worker;
	struct group *group; /* NULL: it has ended */
	int fd, error;
	struct pager_trace_stat stat;
	struct trace_state state;
	struct trace_record last; /* may still be lengthened; kind 0: none */
	struct trace_record sample; /* the last */
	uint64_t lost;            /* records since the last that found room */
	char *ring;               /* owned; mapped */
	uint64_t head, tail;      /* bytes ever put in, ever written */
	struct completion completion;
	bool writing, told;
	uint64_t progress_at; /* ns */
};

/* ---- the ring ---- */

static uint64_t room(const struct trace *tr)
{
	return RING - (tr->head - tr->tail);
}

static void put_bytes(struct trace *tr, const void *from, size_t n)
{
	size_t at = tr->head % RING, first = MIN(n, RING - at);

	memcpy(tr->ring + at, from, first);
	memcpy(tr->ring, (const char *)from + first, n - first);
	tr->head += n;
}

static void encode(struct trace *tr, const struct trace_record *r)
{
	uint8_t bytes[TRACE_RECORD_MAX];

	put_bytes(tr, bytes, trace_encode(&tr->state, r, bytes));
	tr->stat.records++;
}

static void tell_lost(struct trace *tr, uint64_t time)
{
	if (tr->lost)
		encode(tr, &(struct trace_record){.kind = TRACE_LOST, .time = time, .a = tr->lost});
	tr->lost = 0;
}

static void append(struct trace *tr, const struct trace_record *r)
{
	if (room(tr) < RESERVE) {
		tr->lost++;
		tr->stat.dropped++;
		return;
	}
	tell_lost(tr, r->time);
	encode(tr, r);
}

static void append_last(struct trace *tr)
{
	if (tr->last.kind)
		append(tr, &tr->last);
	tr->last.kind = TRACE_NOTHING;
}

static bool lengthens(const struct trace_record *last, const struct trace_record *r)
{
	return last->kind == r->kind && last->task == r->task && last->how == r->how &&
	       last->address + pages_to_bytes(last->pages) == r->address;
}

void trace_put(struct trace *tr, struct trace_record *r)
{
	if (lengthens(&tr->last, r)) {
		tr->last.pages += r->pages;
		return;
	}
	append_last(tr);
	r->time = now_ns();
	if (r->kind == TRACE_IN || r->kind == TRACE_RECLAIM)
		tr->last = *r; /* page by page, it is told */
	else
		append(tr, r);
}

/* A group that rests is not worth records. */
void trace_sample(struct group *g)
{
	struct trace_record r = {.kind = TRACE_RESIDENT, .a = g->resident, .b = g->overhead};
	struct trace *tr = g->trace;
	const struct task *t;

	if (!tr)
		return;
	TAILQ_FOREACH(t, &g->tasks, link)
		r.pages += t->table.evicted;
	if (r.pages == tr->sample.pages && r.a == tr->sample.a && r.b == tr->sample.b)
		return;
	tr->sample = r;
	trace_put(tr, &r);
}

/* ---- the file ---- */

static void finish(struct trace *tr)
{
	uint64_t now = now_ns();

	append_last(tr);
	tell_lost(tr, now);
	encode(tr, &(struct trace_record){.kind = TRACE_END,
					  .time = now,
					  .a = tr->stat.records,
					  .b = tr->stat.dropped});
	tr->stat.records--; /* not the end itself */
	tr->group->trace = NULL;
	tr->group = NULL;
	tr->progress_at = now;
}

static void written(struct completion *completion, int result)
{
	struct trace *tr = container_of(completion, struct trace, completion);

	tr->writing = false;
	tr->progress_at = now_ns();
	if (result > 0) {
		tr->tail += (uint64_t)result;
		tr->stat.bytes += (uint64_t)result;
	} else if (result != -EINTR && result != -EAGAIN) {
		tr->error = result < 0 ? result : -EIO;
		if (tr->group)
			finish(tr);
	}
}

static bool is_due(const struct trace *tr)
{
	uint64_t n = tr->head - tr->tail;

	return n && (!tr->group || n >= WRITE_MIN ||
		     tr->worker->now >= tr->progress_at + WRITE_EVERY);
}

static void write_on(struct trace *tr)
{
	uint64_t at = tr->tail % RING;
	uint64_t length = MIN(tr->head - tr->tail, RING - at);

	tr->completion.done = written;
	tr->writing = uring_write(&tr->worker->uring, tr->fd, tr->ring + at,
				  (unsigned)MIN(length, WRITE_MAX), tr->tail, -1, &tr->completion) == 0; /* else in the next pass */
}

static void tell(struct trace *tr, int error)
{
	if (!tr->told)
		pager_notify_trace(tr->worker->pager, &tr->stat, error);
	tr->told = true;
}

static void trace_free(struct trace *tr)
{
	munmap(tr->ring, RING);
	close(tr->fd);
	free(tr);
}

static void serve(struct trace *tr)
{
	append_last(tr);
	if (!tr->writing && !tr->error && is_due(tr))
		write_on(tr);
	if (tr->group)
		return;
	if (!tr->writing && (tr->error || tr->head == tr->tail)) {
		LIST_REMOVE(tr, link);
		tell(tr, tr->error);
		trace_free(tr);
	} else if (tr->worker->now > tr->progress_at + STUCK_AFTER) {
		tell(tr, -ETIMEDOUT); /* what is under way is waited for, but by nobody else */
		tr->error = -ETIMEDOUT;
	}
}

void traces_serve(struct worker *w)
{
	struct trace *next;

	for (struct trace *tr = LIST_FIRST(&w->traces); tr; tr = next) {
		next = LIST_NEXT(tr, link);
		serve(tr);
	}
}

uint64_t traces_due(const struct worker *w)
{
	const struct trace *tr;
	uint64_t due = UINT64_MAX;

	LIST_FOREACH(tr, &w->traces, link) {
		if (tr->group && tr->head != tr->tail && !tr->writing)
			due = MIN(due, tr->progress_at + WRITE_EVERY);
		else if (!tr->group && !tr->told)
			due = MIN(due, tr->writing ? tr->progress_at + STUCK_AFTER : 0);
	}
	return due;
}

void traces_close(struct worker *w)
{
	uint64_t end = now_ns() + CLOSE_MAX;
	struct trace *tr;

	LIST_FOREACH(tr, &w->traces, link)
		if (tr->group)
			finish(tr);
	while (!LIST_EMPTY(&w->traces) && (w->now = now_ns()) < end) {
		traces_serve(w);
		uring_run(&w->uring, CLOSE_STEP);
	}
	/* The kernel may still read what is left: it is not freed. */
}

/* ---- life ---- */

void trace_end(struct group *g)
{
	if (g->trace)
		finish(g->trace);
}

static void begin(struct trace *tr, struct group *g)
{
	struct trace_header header = {
		.magic = TRACE_MAGIC,
		.version = TRACE_VERSION,
		.size = sizeof(header),
		.started = now_ns(),
		.pid = getpid(),
		.tid = gettid(),
	};
	struct timespec now;
	struct task *t;

	clock_gettime(CLOCK_REALTIME, &now);
	header.time = now.tv_sec * 1000000000ll + now.tv_nsec;
	snprintf(header.group, sizeof(header.group), "%s", g->name);
	put_bytes(tr, &header, sizeof(header));
	tr->worker = g->worker;
	tr->group = g;
	tr->state.time = tr->progress_at = header.started;
	g->trace = tr;
	LIST_INSERT_HEAD(&g->worker->traces, tr, link);
	trace_limit(g);
	if (g->armed)
		trace_armed(g);
	TAILQ_FOREACH(t, &g->tasks, link)
		trace_task(t);
}

static void do_begin(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);

	(void)w;
	call->result = call->group->trace ? -EBUSY : 0;
	if (call->result == 0)
		begin(call->trace, call->group);
	sem_post(&call->done);
}

int pager_trace(struct pager_group *pg, int fd, uint64_t *ret_id)
{
	struct call call = {.group = &pg->group, .trace = calloc(1, sizeof(struct trace))};
	uint64_t id = atomic_fetch_add(&pg->pager->next_id, 1);
	int r = -ENOMEM;

	if (!call.trace) {
		close(fd);
		return r;
	}
	*call.trace = (struct trace){.fd = fd, .stat.id = id};
	/* Populated: it is not for the worker to wait for that memory. */
	call.trace->ring = mmap(NULL, RING, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (call.trace->ring == MAP_FAILED)
		call.trace->ring = NULL;
	else
		r = call_worker(pg->group.worker, &call, do_begin);
	if (r < 0)
		trace_free(call.trace);
	else
		*ret_id = id;
	return r;
}

static void do_end(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);
	struct trace *tr;

	call->result = -ESRCH;
	LIST_FOREACH(tr, &w->traces, link) {
		if (tr->stat.id != call->id)
			continue;
		call->result = 0;
		if (tr->group)
			finish(tr);
	}
	sem_post(&call->done);
}

void pager_trace_end(struct pager *p, uint64_t id)
{
	struct call call = {.id = id};

	ask_all(p, &call, do_end);
}
