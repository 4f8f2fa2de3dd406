/* A trace as text: a line for each record, and one for each fault that ends, with its latency. */
#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include "base/util.h"
#include "proto/exchange.h"
#include "trace_file.h"

struct text {
	FILE *out;
	uint64_t started;
};

static void print_time(const struct text *text, uint64_t time)
{
	uint64_t since = time - text->started;

	fprintf(text->out, "%6" PRIu64 ".%09" PRIu64 " ", since / 1000000000, since % 1000000000);
}

static void print_header(FILE *out, const struct trace_header *header)
{
	time_t seconds = header->time / 1000000000;
	struct tm tm;
	char when[32] = "?";

	if (gmtime_r(&seconds, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", &tm);
	fputs("# group ", out);
	for (const char *c = header->group; *c; c++)
		fputc(*c > ' ' && *c <= '~' ? *c : '?', out);
	fprintf(out, ", upagerd %d, from %s\n", header->pid, when);
}

static const char *result_name(unsigned result)
{
	static const char *const names[] = {
		[EXCHANGE_PENDING] = "out", [EXCHANGE_OUT] = "out", [EXCHANGE_OUT_UNMARKED] = "out",
		[EXCHANGE_BUSY] = "busy", [EXCHANGE_GONE] = "gone", [EXCHANGE_STALE] = "stale",
		[EXCHANGE_DENIED] = "denied"};

	return result < ARRAY_SIZE(names) ? names[result] : "?";
}

/* What the kind's own fields mean. */
static void print_rest(FILE *out, const struct trace_record *r)
{
	switch (r->kind) {
	case TRACE_TASK:
		fprintf(out, " pid %" PRIu64 " parent %" PRIu64, r->a, r->b);
		break;
	case TRACE_FAULT:
		fprintf(out, " %s %s%s", trace_access_name(r->a), trace_leaf_name(r->how),
			r->a & TRACE_BY_AGENT ? " by the agent" : "");
		break;
	case TRACE_WAIT:
		fprintf(out, " for %s", trace_wait_name(r->how));
		break;
	case TRACE_OUTCOME:
		fprintf(out, " %s after %" PRIu64 " ns", trace_outcome_name(r->how), r->a);
		break;
	case TRACE_IN:
		fprintf(out, " %s", trace_leaf_name(r->how));
		break;
	case TRACE_EVICT:
	case TRACE_COPIED:
		fprintf(out, " command %" PRIu64, r->a);
		break;
	case TRACE_EVICTED:
		fprintf(out, " command %" PRIu64 " left %" PRIu64 " %s", r->a, r->b,
			result_name(r->how));
		break;
	case TRACE_WRITE:
		fprintf(out, " tier %u slot %" PRIu64, r->how, r->a);
		break;
	case TRACE_READ:
		fprintf(out, " tier %u slot %" PRIu64 "%s", r->how, r->a, r->b ? " ahead" : "");
		break;
	case TRACE_WRITTEN:
	case TRACE_READ_DONE:
		fprintf(out, " tier %u slot %" PRIu64 " error %" PRIu64, r->how, r->a, r->b);
		break;
	case TRACE_REMAP:
		fprintf(out, " to 0x%" PRIx64, pages_to_bytes(r->a));
		break;
	case TRACE_REMOVE:
		fputs(r->how ? " by the agent" : "", out);
		break;
	case TRACE_LIMIT:
	case TRACE_LOST:
		fprintf(out, " %" PRIu64, r->a);
		break;
	case TRACE_RESIDENT:
		fprintf(out, " evicted, resident %" PRIu64 " frames %" PRIu64, r->a, r->b);
		break;
	case TRACE_END:
		fprintf(out, " records %" PRIu64 " dropped %" PRIu64, r->a, r->b);
		break;
	default:
		break;
	}
}

static void print_record(const struct text *text, const struct trace_record *r)
{
	print_time(text, r->time);
	fputs(trace_kind_name(r->kind), text->out);
	if (r->task)
		fprintf(text->out, " task %" PRIu64, r->task);
	if (r->tid)
		fprintf(text->out, " tid %" PRIu32, r->tid);
	if (r->address)
		fprintf(text->out, " 0x%" PRIx64, r->address);
	if (r->pages || r->kind == TRACE_RESIDENT)
		fprintf(text->out, " pages %" PRIu64, r->pages);
	print_rest(text->out, r);
	fputc('\n', text->out);
}

static void print_fault(void *context, const struct trace_fault *fault)
{
	const struct text *text = context;

	print_time(text, fault->ended);
	fprintf(text->out,
		"%s task %" PRIu64 " tid %" PRIu32 " 0x%" PRIx64 " %s %s %s %" PRIu64 " ns\n",
		trace_end_name(fault->end), fault->task, fault->tid, fault->address,
		trace_access_name(fault->access), trace_leaf_name(fault->leaf),
		trace_outcome_name(fault->outcome), fault->ended - fault->begun);
}

int trace_write_text(struct trace_file *file, FILE *out)
{
	struct text text = {.out = out, .started = file->header.started};
	struct trace_follow follow = {.ended = print_fault, .context = &text};
	struct trace_record record;
	int r, error = 0;

	print_header(out, &file->header);
	while ((r = trace_file_next(file, &record)) > 0 && error == 0) {
		print_record(&text, &record);
		error = trace_follow(&follow, &record);
	}
	trace_follow_done(&follow, file->state.time);
	return error ? error : r;
}
