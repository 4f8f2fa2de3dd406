/* What goes into traces: records that take more than a line to put together. */
#include "base/util.h"
#include "pager/trace.h"
#include "sys/kernel.h"

/* The file's numbers are the code's. */
#define X(name)                                                                                    \
	_Static_assert(TRACE_OUTCOME_##name == 1 + offsetof(struct counters, name) / 8, #name);
TRACE_OUTCOMES(X)
#undef X
_Static_assert((int)TRACE_LEAF_present == WORD_PRESENT && (int)TRACE_LEAF_evicting == WORD_EVICTING &&
	       (int)TRACE_LEAF_standby == WORD_STANDBY && (int)TRACE_LEAF_swap == WORD_SWAP &&
	       (int)TRACE_LEAF_filling == WORD_FILLING && (int)TRACE_LEAF_poison == WORD_POISON,
	       "leaves begin as the tags of words do");

/* ---- faults ---- */

/* As the tree would decide now. */
static enum trace_leaf leaf_at(struct task *t, uint64_t address)
{
	word_t word = table_get(&t->table, address);
	const struct region *region;

	if (address == t->sentinel)
		return TRACE_LEAF_sentinel;
	if (mappings_find(&t->mappings, address))
		return TRACE_LEAF_file;
	if (word_tag(word) == WORD_SWAP && word_tier(word) == TIER_SAME)
		return TRACE_LEAF_same;
	region = word_tag(word) == WORD_NONE ? regions_find(&t->regions, address) : NULL;
	if (region && region->start <= address && region->hugetlb)
		return TRACE_LEAF_hugetlb;
	return (enum trace_leaf)word_tag(word);
}

static void put_fault(struct task *t, const struct uffd_msg *m)
{
	uint64_t flags = m->arg.pagefault.flags, address = page_down(m->arg.pagefault.address);
	uint32_t tid = m->arg.pagefault.feat.ptid;
	unsigned access = flags & UFFD_PAGEFAULT_FLAG_WP ? TRACE_WRITES | TRACE_PROTECTED
			  : flags & UFFD_PAGEFAULT_FLAG_WRITE ? TRACE_WRITES : TRACE_READS;

	if (tid && tid == (uint32_t)t->agent_ns_pid[t->agent])
		access |= TRACE_BY_AGENT;
	trace(t, TRACE_FAULT, .tid = tid, .address = address, .how = (uint8_t)leaf_at(t, address),
	      .a = access);
}

void trace_messages(struct task *t, const struct uffd_msg *messages, uint32_t n)
{
	for (const struct uffd_msg *m = messages; t->group->trace && m < messages + n; m++) {
		uint64_t start = m->arg.remove.start, pages = bytes_to_pages(m->arg.remove.end - start);

		switch (m->event) {
		case UFFD_EVENT_PAGEFAULT:
			put_fault(t, m);
			break;
		case UFFD_EVENT_FORK:
			trace(t, TRACE_FORK);
			break;
		case UFFD_EVENT_REMAP:
			trace(t, TRACE_REMAP, .address = m->arg.remap.from,
			      .pages = bytes_to_pages(m->arg.remap.len),
			      .a = bytes_to_pages(m->arg.remap.to));
			break;
		case UFFD_EVENT_REMOVE:
			trace(t, TRACE_REMOVE, .address = start, .pages = pages,
			      .how = event_is_ours(t, start, m->arg.remove.end));
			break;
		case UFFD_EVENT_UNMAP:
			trace(t, TRACE_UNMAP, .address = start, .pages = pages);
			break;
		default:
			break;
		}
	}
}

/* A fault moves one of these counters by one: so the difference tells which. */
uint64_t trace_outcomes(const struct task *t)
{
	uint64_t sum = 0;

#define X(name) sum += TRACE_OUTCOME_##name * t->counters.name;
	TRACE_OUTCOMES(X)
#undef X
	return sum;
}

enum fault_result trace_fault_slowly(struct fault *f)
{
	struct task *t = f->task;
	uint64_t before = trace_outcomes(t), started = now_ns();
	enum fault_result result = handle_mm_fault(f);

	if (result == FAULT_DONE)
		trace(t, TRACE_OUTCOME, .tid = f->ptid, .address = f->address,
		      .how = (uint8_t)(trace_outcomes(t) - before), .a = now_ns() - started);
	else if (!f->again)
		trace(t, TRACE_WAIT, .tid = f->ptid, .address = f->address,
		      .how = result == FAULT_NO_ROOM ? TRACE_FOR_ROOM : TRACE_FOR_EVENT);
	return result;
}

void trace_settled(struct task *t, uint64_t address, uint32_t ptid, uint64_t before)
{
	trace(t, TRACE_OUTCOME, .tid = ptid, .address = address,
	      .how = (uint8_t)(trace_outcomes(t) - before));
}

/* ---- pages out ---- */

void trace_posted(struct task *t, const struct command *c)
{
	for (uint32_t r = 0; t->group->trace && r < c->n_runs; r++)
		trace(t, TRACE_EVICT, .address = c->runs[r].address, .pages = c->runs[r].pages,
		      .a = c->number);
}

void trace_harvested(struct task *t, const struct command *c,
		     const struct exchange_command *theirs, uint32_t from)
{
	uint32_t first = 0, end; /* of a run, among the command's pages */

	for (uint32_t r = 0; t->group->trace && r < c->n_runs; r++, first = end) {
		uint32_t i = MAX(first, from), out = 0;
		unsigned why = 0;

		end = first + (uint32_t)c->runs[r].pages;
		for (; i < MIN(end, c->n_harvested); i++) {
			out += c->out[i];
			if (!c->out[i] && !why)
				why = __atomic_load_n(&theirs->result[i], __ATOMIC_RELAXED);
		}
		if (i > MAX(first, from))
			trace(t, TRACE_EVICTED,
			      .address = c->runs[r].address + pages_to_bytes(MAX(first, from) - first),
			      .pages = i - MAX(first, from),
			      .how = (uint8_t)MIN(why, (unsigned)EXCHANGE_DENIED), .a = c->number,
			      .b = out);
	}
}

/* ---- the rest ---- */

void trace_task(struct task *t)
{
	trace(t, TRACE_TASK, .tid = (uint32_t)t->agent_ns_pid[t->agent], .a = (uint64_t)t->pid,
	      .b = t->parent);
}

static void put(struct group *g, struct trace_record r)
{
	if (g->trace)
		trace_put(g->trace, &r);
}

void trace_limit(struct group *g)
{
	put(g, (struct trace_record){.kind = TRACE_LIMIT, .a = bytes_to_pages(atomic_load(&g->limit))});
}

void trace_armed(struct group *g)
{
	put(g, (struct trace_record){.kind = TRACE_ARMED});
}
