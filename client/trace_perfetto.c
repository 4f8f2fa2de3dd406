/*
 * A trace in Chrome's trace event format, for ui.perfetto.dev: a process for each task, in it a track for
 * each thread with its faults, and one for the agent with its commands; and the daemon, with its worker.
 *
 * The file is read twice: names are needed first that it tells last.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/util.h"
#include "trace_file.h"

#define NO_PID    (1u << 30) /* and above: numbers of tasks whose process is not known, of agents' tracks */

struct known_task {
	uint64_t task, pid, parent;
	uint32_t agent;    /* tid */
	uint64_t evicting; /* ns: until when the agent is known to have been busy */
};

struct known_command {
	uint64_t task, number, posted, moved, pages, out, runs;
};

struct perfetto {
	FILE *out;
	const struct trace_header *header;
	struct known_task *tasks;
	struct known_command *commands; /* under way */
	size_t n_tasks, n_commands;
	bool first;
};

/* ---- what is known ---- */

static struct known_task *task_of(struct perfetto *p, uint64_t id)
{
	struct known_task *tasks;

	for (size_t i = p->n_tasks; i-- > 0;)
		if (p->tasks[i].task == id)
			return &p->tasks[i];
	tasks = reallocarray(p->tasks, p->n_tasks + 1, sizeof(*tasks));
	if (!tasks)
		return NULL;
	p->tasks = tasks;
	tasks[p->n_tasks] = (struct known_task){.task = id};
	return &tasks[p->n_tasks++];
}

static uint64_t pid_of(struct perfetto *p, uint64_t id)
{
	const struct known_task *task = task_of(p, id);

	return task && task->pid ? task->pid : NO_PID + id % NO_PID;
}

static uint64_t agent_of(uint64_t id)
{
	return NO_PID + id % NO_PID;
}

static struct known_command *command_of(struct perfetto *p, const struct trace_record *r)
{
	for (size_t i = p->n_commands; i-- > 0;)
		if (p->commands[i].task == r->task && p->commands[i].number == r->a)
			return &p->commands[i];
	return NULL;
}

/* ---- JSON ---- */

static void print_us(FILE *out, const char *key, uint64_t ns)
{
	fprintf(out, ",\"%s\":%" PRIu64 ".%03" PRIu64, key, ns / 1000, ns % 1000);
}

/* An event without its end: what else it has, then a brace. */
static void begin_event(struct perfetto *p, const char *phase, const char *name, uint64_t pid,
			uint64_t tid, uint64_t time)
{
	fprintf(p->out, "%s{\"ph\":\"%s\",\"name\":\"%s\",\"pid\":%" PRIu64 ",\"tid\":%" PRIu64,
		p->first ? "" : ",\n", phase, name, pid, tid);
	print_us(p->out, "ts", time - p->header->started);
	p->first = false;
}

static void begin_slice(struct perfetto *p, const char *name, uint64_t pid, uint64_t tid,
			uint64_t from, uint64_t to)
{
	begin_event(p, "X", name, pid, tid, from);
	print_us(p->out, "dur", to - from);
}

static void print_slice(struct perfetto *p, const char *name, uint64_t pid, uint64_t tid,
			uint64_t from, uint64_t to)
{
	begin_slice(p, name, pid, tid, from, to);
	fputs("}", p->out);
}

static void print_name(struct perfetto *p, const char *what, uint64_t pid, uint64_t tid,
		       const char *name, uint64_t number)
{
	begin_event(p, "M", what, pid, tid, p->header->started);
	fprintf(p->out, ",\"args\":{\"name\":\"%s", name);
	if (number)
		fprintf(p->out, " %" PRIu64, number);
	fputs("\"}}", p->out);
}

/* ---- events ---- */

static void print_fault(void *context, const struct trace_fault *f)
{
	struct perfetto *p = context;
	uint64_t pid = pid_of(p, f->task);

	begin_slice(p, f->end == TRACE_DONE ? trace_outcome_name(f->outcome) : trace_end_name(f->end), pid, f->tid, f->begun,
		    f->ended);
	fprintf(p->out, ",\"cat\":\"fault\",\"args\":{\"address\":\"0x%" PRIx64
		"\",\"access\":\"%s\",\"word\":\"%s\"}}",
		f->address, trace_access_name(f->access), trace_leaf_name(f->leaf));
	if (f->waited)
		print_slice(p, f->wait == TRACE_FOR_ROOM ? "waits for room" : "waits for an event",
			    pid, f->tid, f->waited, f->decided ? f->decided : f->ended);
}

static int post(struct perfetto *p, const struct trace_record *r)
{
	struct known_command *c = command_of(p, r);

	if (!c) {
		c = reallocarray(p->commands, p->n_commands + 1, sizeof(*c));
		if (!c)
			return -ENOMEM;
		p->commands = c;
		c = &c[p->n_commands++];
		*c = (struct known_command){.task = r->task, .number = r->a, .posted = r->time};
	}
	c->pages += r->pages;
	c->runs++;
	return 0;
}

/* Commands of an agent are worked off one after the other. */
static void print_command(struct perfetto *p, const struct trace_record *r)
{
	struct known_command *c = command_of(p, r);
	struct known_task *task = task_of(p, r->task);
	uint64_t pid = pid_of(p, r->task), tid = agent_of(r->task), from, moved;

	if (!c || !task)
		return;
	from = MAX(c->posted, task->evicting);
	moved = MAX(c->moved, from);
	begin_slice(p, "evict", pid, tid, from, r->time);
	fprintf(p->out, ",\"cat\":\"evict\",\"args\":{\"pages\":%" PRIu64 ",\"runs\":%" PRIu64
		",\"left\":%" PRIu64 "}}", c->pages, c->runs, c->out);
	print_slice(p, "move", pid, tid, from, moved);
	print_slice(p, "copy", pid, tid, moved, r->time);
	task->evicting = r->time;
	*c = p->commands[--p->n_commands];
}

static void harvest(struct perfetto *p, const struct trace_record *r)
{
	struct known_command *c = command_of(p, r);

	if (!c)
		return;
	c->moved = r->time;
	c->out += r->b;
}

static void print_io(struct perfetto *p, const struct trace_record *r, const char *name, bool end)
{
	begin_event(p, end ? "e" : "b", name, (uint64_t)p->header->pid, (uint64_t)p->header->tid,
		    r->time);
	fprintf(p->out, ",\"cat\":\"io\",\"id\":\"%s %u %" PRIu64 "\",\"args\":{\"pages\":%" PRIu64
		",\"%s\":%" PRIu64 "}}", name, r->how, r->a, r->pages, end ? "error" : "ahead", r->b);
}

static void print_event(struct perfetto *p, const struct trace_record *r)
{
	bool all = !r->task;

	begin_event(p, "i", trace_kind_name(r->kind), all ? (uint64_t)p->header->pid
							   : pid_of(p, r->task), 0, r->time);
	fprintf(p->out, ",\"s\":\"%s\",\"args\":{\"address\":\"0x%" PRIx64 "\",\"pages\":%" PRIu64 "}}",
		all ? "g" : "p", r->address, r->kind == TRACE_LOST ? r->a : r->pages);
}

static void print_counter(struct perfetto *p, const char *name, uint64_t time, uint64_t pages)
{
	begin_event(p, "C", name, (uint64_t)p->header->pid, 0, time);
	fprintf(p->out, ",\"args\":{\"bytes\":%" PRIu64 "}}", pages_to_bytes(pages));
}

static int print_record(struct perfetto *p, const struct trace_record *r)
{
	switch (r->kind) {
	case TRACE_OUTCOME:
		if (r->a && r->time - p->header->started >= r->a)
			print_slice(p, trace_outcome_name(r->how), (uint64_t)p->header->pid,
				    (uint64_t)p->header->tid, r->time - r->a, r->time);
		return 0;
	case TRACE_EVICT:
		return post(p, r);
	case TRACE_EVICTED:
		harvest(p, r);
		return 0;
	case TRACE_COPIED:
		print_command(p, r);
		return 0;
	case TRACE_READ:
	case TRACE_READ_DONE:
		print_io(p, r, "read", r->kind == TRACE_READ_DONE);
		return 0;
	case TRACE_WRITE:
	case TRACE_WRITTEN:
		print_io(p, r, "write", r->kind == TRACE_WRITTEN);
		return 0;
	case TRACE_REMOVE:
		if (!r->how)
			print_event(p, r);
		return 0;
	case TRACE_FORK:
	case TRACE_REMAP:
	case TRACE_UNMAP:
	case TRACE_ARMED:
	case TRACE_LOST:
		print_event(p, r);
		return 0;
	case TRACE_LIMIT:
		print_counter(p, "limit", r->time, r->a);
		return 0;
	case TRACE_RESIDENT:
		print_counter(p, "resident", r->time, r->a + r->b);
		print_counter(p, "evicted", r->time, r->pages);
		return 0;
	default:
		return 0;
	}
}

/* ---- the whole ---- */

static int learn(struct perfetto *p, struct trace_file *file)
{
	struct trace_record record;
	struct known_task *task;

	while (trace_file_next(file, &record) > 0) {
		if (record.kind != TRACE_TASK)
			continue;
		task = task_of(p, record.task);
		if (!task)
			return -ENOMEM;
		task->pid = record.a ? record.a : task->pid;
		task->parent = record.b ? record.b : task->parent;
		task->agent = record.tid ? record.tid : task->agent;
	}
	return trace_file_rewind(file);
}

static void print_names(struct perfetto *p)
{
	uint64_t daemon = (uint64_t)p->header->pid;

	print_name(p, "process_name", daemon, 0, "upagerd", 0);
	print_name(p, "thread_name", daemon, (uint64_t)p->header->tid, "worker", 0);
	for (size_t i = 0; i < p->n_tasks; i++) {
		const struct known_task task = p->tasks[i];
		uint64_t pid = pid_of(p, task.task);

		print_name(p, "process_name", pid, 0, "task", task.task);
		print_name(p, "thread_name", pid, agent_of(task.task), "agent", 0);
		if (task.agent)
			print_name(p, "thread_name", pid, task.agent, "agent: faults", 0);
	}
}

int trace_write_perfetto(struct trace_file *file, FILE *out)
{
	struct perfetto p = {.out = out, .header = &file->header, .first = true};
	struct trace_follow follow = {.ended = print_fault, .context = &p};
	struct trace_record record;
	int r, error = learn(&p, file);

	fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n", out);
	print_names(&p);
	for (r = 1; error == 0 && (r = trace_file_next(file, &record)) > 0;) {
		error = print_record(&p, &record);
		if (error == 0)
			error = trace_follow(&follow, &record);
	}
	trace_follow_done(&follow, file->state.time);
	fputs("\n]}\n", out);
	free(p.tasks);
	free(p.commands);
	return error ? error : r;
}
