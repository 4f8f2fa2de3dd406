/*
 * What programs ask for of the memory they have mapped: to serve a mapping, to write it back, to
 * treat it in a certain way. Calls wait for the gate, or for I/O, and answer when it is done.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "pager/file.h"

#define UNIT_MAX      512u /* pages */
#define TASK_SIZE_MAX (1ull << 47)

struct image_call {
	struct mail mail;
	STAILQ_ENTRY(image_call) link;
	bool (*run)(struct image_call *call, struct task *task); /* false: not yet */
	pager_task_id task;
	uint64_t start, end;
	struct image *image; /* a use; NULL: of none in particular */
	enum pager_advice advice;
	uint16_t unit;
	pager_done *done;
	void *context;
	_Atomic unsigned pending; /* flushes */
	_Atomic int result;
};

static void answer(struct image_call *call, int result)
{
	if (call->image)
		image_put(call->image);
	call->done(call->context, result);
	free(call);
}

/* ---- a new mapping ---- */

/* Nobody has the image mapped but for this call, whose mapping may have been met already. */
static bool is_first(const struct image_call *call, const struct task *t)
{
	unsigned mine = 0;

	for (size_t i = 0; i < t->mappings.n; i++) {
		const struct mapping *m = &t->mappings.list[i];

		mine += m->image == call->image && m->start >= call->start && m->end <= call->end;
	}
	return atomic_load(&call->image->mapped) == mine;
}

/* What was mapped there before is history: commands posted against it are void. */
static bool run_map(struct image_call *call, struct task *t)
{
	const struct mapping like = {.unit = call->unit};
	bool first = is_first(call, t);
	int r;

	if (!t->features.files) {
		answer(call, -EOPNOTSUPP);
		return true;
	}
	/* While nobody had it mapped the file may have been written to by other ways: what was read
	 * before, or is still being read for who had it, does not count. */
	if ((first && atomic_load(&call->image->reads)) || !gate_take(t))
		return false;
	if (first)
		reclaim_range(call->image, 0, image_n_pages(call->image));
	r = uffd_register_file(t->uffd, call->start, call->end - call->start);
	if (r == 0 && !images_learn(t, call->start, call->end, &like))
		r = -EINVAL;
	gate_release(t, true);
	answer(call, r);
	return true;
}

/* ---- sync ---- */

struct sync_part {
	struct flush_call flush;
	struct image_call *call;
};

static void part_done(struct image_call *call, int result)
{
	if (result < 0)
		atomic_store(&call->result, result);
	if (atomic_fetch_sub(&call->pending, 1) == 1)
		answer(call, atomic_load(&call->result));
}

static void part_flushed(struct flush_call *flush, int result)
{
	struct sync_part *part = container_of(flush, struct sync_part, flush);

	part_done(part->call, result);
	free(part);
}

static int sync_mapping(struct image_call *call, struct task *t, const struct mapping *m)
{
	uint64_t start = MAX(call->start, m->start), end = MIN(call->end, m->end);
	struct sync_part *part = malloc(sizeof(*part));
	int r = -ENOMEM;

	if (!part)
		return r;
	*part = (struct sync_part){.flush.done = part_flushed, .call = call};
	atomic_fetch_add(&call->pending, 1);
	r = flush_post(t->worker->pager, m->image, mapping_page(m, start), mapping_page(m, end),
		       &part->flush);
	if (r < 0) {
		atomic_fetch_sub(&call->pending, 1);
		free(part);
	}
	return r;
}

static bool run_sync(struct image_call *call, struct task *t)
{
	int r = -ENOMEM; /* as msync(2) where nothing is mapped */

	images_learn_gaps(t, call->start, call->end);
	atomic_store(&call->pending, 1);
	for (size_t i = 0; i < t->mappings.n; i++) {
		const struct mapping *m = &t->mappings.list[i];

		if (m->start >= call->end || m->end <= call->start)
			continue;
		/* A private one, too: it may stand for a shared one that cannot be written to. */
		r = sync_mapping(call, t, m);
		if (r < 0)
			break;
	}
	part_done(call, r);
	return true;
}

/* ---- advice ---- */

/* Pages of ours that are old now, wherever the hand stands, or on probation. */
static void age_words(struct task *t, uint64_t start, uint64_t end)
{
	for (struct leaf *leaf = table_next(&t->table, start, end); leaf;
	     leaf = table_next(&t->table, leaf->base + LEAF_SIZE, end)) {
		unsigned from = start > leaf->base ? leaf_index(start) : 0;
		unsigned to = end - leaf->base < LEAF_SIZE ? leaf_index(end) : LEAF_WORDS;

		for (unsigned i = from; i < to; i++) {
			word_t word = leaf->words[i] & ~(word_t)(WORD_YOUNG | WORD_ACTIVE);

			if (word_tag(word) != WORD_PRESENT)
				continue;
			if (policy_of(t)->queues) {
				queue_push(&t->queue, leaf->base + pages_to_bytes(i), 1);
				word |= WORD_YOUNG;
			}
			word_set(&t->table, leaf, i, word);
		}
	}
}

static void advise_mapping(const struct image_call *call, struct mapping *m)
{
	uint64_t start = MAX(call->start, m->start), end = MIN(call->end, m->end);

	switch (call->advice) {
	case PAGER_ADVICE_COLD:
		reclaim_range(m->image, mapping_page(m, start), mapping_page(m, end));
		break;
	case PAGER_ADVICE_SEQUENTIAL:
		m->advice = MAPPING_SEQUENTIAL;
		break;
	case PAGER_ADVICE_RANDOM:
		m->advice = MAPPING_RANDOM;
		break;
	case PAGER_ADVICE_NORMAL:
		m->advice = MAPPING_NORMAL;
		break;
	}
}

static bool run_advise(struct image_call *call, struct task *t)
{
	bool file = false;

	images_learn_gaps(t, call->start, call->end);
	for (size_t i = 0; i < t->mappings.n; i++) {
		struct mapping *m = &t->mappings.list[i];

		if (m->start >= call->end || m->end <= call->start)
			continue;
		advise_mapping(call, m);
		file = true;
	}
	if (call->advice == PAGER_ADVICE_COLD)
		age_words(t, call->start, call->end);
	answer(call, file || call->advice == PAGER_ADVICE_COLD ? 0 : -EINVAL);
	return true;
}

/* ---- all ---- */

bool calls_serve(struct worker *w)
{
	STAILQ_HEAD(, image_call) list = STAILQ_HEAD_INITIALIZER(list);
	struct image_call *call;

	STAILQ_CONCAT(&list, &w->image_calls);
	while ((call = STAILQ_FIRST(&list))) {
		struct task *t = worker_task(w, call->task);

		STAILQ_REMOVE_HEAD(&list, link);
		if (!t)
			answer(call, -ESRCH);
		else if (!call->run(call, t))
			STAILQ_INSERT_TAIL(&w->image_calls, call, link);
	}
	return !STAILQ_EMPTY(&w->image_calls);
}

static void take_call(struct worker *w, struct mail *mail)
{
	STAILQ_INSERT_TAIL(&w->image_calls, container_of(mail, struct image_call, mail), link);
	w->images_due = 0;
}

static int post(struct pager *p, pager_task_id id, const struct pager_range *range,
		const struct image_call *what)
{
	int index = pager_find_worker(p, id);
	struct image_call *call;

	if (index < 0)
		return index;
	if (range->address % PAGE_SIZE || !range->length || range->length > TASK_SIZE_MAX ||
	    range->address > TASK_SIZE_MAX - range->length)
		return -EINVAL;
	call = malloc(sizeof(*call));
	if (!call)
		return -ENOMEM;
	*call = *what;
	call->mail.run = take_call;
	call->task = id;
	call->start = range->address;
	call->end = page_up(range->address + range->length);
	worker_post(&p->workers[index], &call->mail);
	return 0;
}

int pager_map(struct pager *p, pager_task_id id, const struct pager_range *range,
	      struct image *image, uint64_t unit, pager_done *done, void *context)
{
	uint64_t pages = MIN(bytes_to_pages(unit), (uint64_t)UNIT_MAX);
	int r;

	if (unit && (unit < PAGE_SIZE || unit & (unit - 1)))
		return -EINVAL;
	image_get(image); /* until the mapping has a use of its own */
	r = post(p, id, range,
		 &(struct image_call){.run = run_map, .image = image,
				      .unit = (uint16_t)MAX(pages, 1ull), .done = done,
				      .context = context});
	if (r < 0)
		image_put(image);
	return r;
}

int pager_sync(struct pager *p, pager_task_id id, const struct pager_range *range,
	       pager_done *done, void *context)
{
	return post(p, id, range,
		    &(struct image_call){.run = run_sync, .done = done, .context = context});
}

int pager_advise(struct pager *p, pager_task_id id, const struct pager_range *range,
		 enum pager_advice advice, pager_done *done, void *context)
{
	return post(p, id, range,
		    &(struct image_call){.run = run_advise, .advice = advice, .done = done,
					 .context = context});
}
