/*
 * The pager, as far as replacement goes: its words, frames, queue, streams, pressure and policies are
 * the real ones; what the kernel does is an array. It follows pager/fill.c, swapin.c, hand.c and
 * evict.c, but whatever takes time there is done at once here.
 */
#include <stdlib.h>

#include "base/util.h"
#include "mm/frames.h"
#include "mm/queue.h"
#include "policy/pressure.h"
#include "policy/refault.h"
#include "policy/stream.h"
#include "policy/victim.h"
#include "proto/exchange.h"
#include "sim.h"

/* As evict.c and swapin.c have them. */
#define BATCH     256u
#define PIECE     64u
#define AHEAD_MIN 16u
#define BASE  (1ull << 20) /* the address of page 0: streams know no address 0 */

struct page {
	word_t word;     /* NONE: never touched, unless resident */
	bool resident, dirty, by_hand;
	uint32_t slot;   /* where its bytes are, if it is clean or has left */
	uint32_t shadow;
};

struct pager {
	const struct model *model;
	const struct victim_policy *policy;
	struct page *pages;
	uint32_t n_pages, hand;
	uint64_t lap;
	struct frames frames;
	struct queue queue;
	struct victims victims;
	struct streams streams, touches;
	struct pressure pressure;
	uint64_t resident;
	uint32_t evictions, next_slot;
	struct outcome *outcome;
};

static uint64_t address_of(uint32_t page)
{
	return BASE + pages_to_bytes(page);
}

static uint32_t page_of(uint64_t address)
{
	return (uint32_t)bytes_to_pages(address - BASE);
}

static struct victims *victims_of(struct pager *p)
{
	p->victims.resident = p->victims.memory = p->resident;
	p->victims.queued = p->queue.pages;
	return &p->victims;
}

/* ---- in ---- */

static void comes(struct pager *p, uint32_t page, const struct victim_page *what)
{
	struct page *at = &p->pages[page];
	unsigned flags = p->policy->comes(victims_of(p), what);

	if (flags & WORD_YOUNG && p->policy->queues)
		queue_push(&p->queue, address_of(page), 1);
	at->word = what->new ? WORD_NONE : word_make(WORD_PRESENT, flags, 0, 0);
	at->resident = true;
	at->dirty = what->new;
	p->resident++;
}

static void comes_back(struct pager *p, uint32_t page, bool asked, bool streamed)
{
	const struct page *at = &p->pages[page];

	comes(p, page, &(struct victim_page){
		.asked = asked,
		.streamed = streamed,
		.by_hand = at->by_hand,
		.distance = refault_distance(p->evictions, at->shadow),
	});
}

/* How many pages may come in at `page`, of the window that a stream asks for. */
static uint32_t clip(const struct pager *p, const struct stream *stream, uint32_t page, uint32_t window)
{
	uint64_t room = p->pressure.high > p->resident ? (p->pressure.high - p->resident) / 4 : 0;

	if (!stream_is_dense(stream))
		return 1;
	window = MIN(window, stream->step > 0 ? p->n_pages - page : page + 1);
	return (uint32_t)MAX(MIN((uint64_t)window, room), 1ull);
}

/* Page i from there on, in the stream's direction. */
static uint32_t step(const struct stream *stream, uint32_t page, uint32_t i)
{
	return stream->step > 0 ? page + i : page - i;
}

static void advance(struct stream *stream, uint32_t page, uint32_t n)
{
	stream_advance(stream, address_of(page) + n * (uint64_t)stream->step);
}

static void fill_zero(struct pager *p, uint32_t page)
{
	struct stream *stream;
	uint32_t window = stream_window(&p->touches, 0, address_of(page), 64, &stream);
	uint32_t n = clip(p, stream, page, window), i;

	p->outcome->fresh++;
	p->outcome->us += COST_FRESH;
	for (i = 0; i < n && p->pages[page + i].word == WORD_NONE && !p->pages[page + i].resident; i++)
		comes(p, page + i, &(struct victim_page){.new = true});
	advance(stream, page, i);
}

static void fill_standby(struct pager *p, uint32_t page)
{
	struct stream *stream;
	uint32_t window = stream_window(&p->streams, 1, address_of(page), p->model->readahead, &stream);
	uint32_t n = stream->step == PAGE_SIZE ? clip(p, stream, page, window) : 1, i;

	p->outcome->standby++;
	p->outcome->us += COST_STANDBY;
	for (i = 0; i < n && word_tag(p->pages[page + i].word) == WORD_STANDBY; i++) {
		frames_free(&p->frames, word_frame(p->pages[page + i].word));
		comes_back(p, page + i, !i, n > STREAM_BLOCK);
	}
	advance(stream, page, i);
}

/* A stream's pages are read before it asks for them, once its window is large enough: then it does not
 * wait, but has to ask. */
static void fill_read(struct pager *p, uint32_t page)
{
	struct stream *stream;
	uint32_t window = stream_window(&p->streams, 1, address_of(page), p->model->readahead, &stream);
	bool ahead = stream->ahead && stream_steps(stream, address_of(page), stream->ahead, window) > 0;
	uint32_t n = MIN(clip(p, stream, page, window), PIECE), i;

	p->outcome->faults += !ahead;
	p->outcome->us += ahead ? COST_STANDBY : COST_FAULT;
	for (i = 0; i < n && word_tag(p->pages[step(stream, page, i)].word) == WORD_SWAP; i++) {
		p->outcome->reads++;
		p->outcome->us += COST_READ;
		comes_back(p, step(stream, page, i), !i,
			   stream_is_dense(stream) && window > STREAM_BLOCK);
	}
	advance(stream, page, i);
	if (window >= AHEAD_MIN)
		stream->ahead = stream->next + window * (uint64_t)stream->step;
}

/* ---- out ---- */

static void reclaim(void *context, uint32_t frame)
{
	struct pager *p = context;

	p->pages[page_of(p->frames.records[frame].address)].word = word_make(WORD_SWAP, 0, 1, 0);
	frames_free(&p->frames, frame);
}

struct batch {
	uint32_t pages[BATCH], n, max, runs;
};

/* false: the batch is full. */
static bool offer(struct pager *p, struct batch *b, enum victim_source source, uint32_t page)
{
	struct page *at = &p->pages[page];
	bool new_run = !b->n || b->pages[b->n - 1] + 1 != page;

	if (!at->resident)
		return true;
	switch (p->policy->choose(at->word, source, p->lap)) {
	case VICTIM_TAKE:
		if (b->n == b->max || b->runs + new_run > EXCHANGE_RUNS)
			return false;
		b->runs += new_run;
		b->pages[b->n++] = page;
		at->resident = false;
		break;
	case VICTIM_SPARE:
		at->word = p->policy->spared(at->word);
		break;
	case VICTIM_SKIP:
		break;
	}
	return true;
}

static void gather_hand(struct pager *p, struct batch *b)
{
	for (uint64_t looked = 0; looked < 4ull * p->n_pages; looked++) {
		if (!offer(p, b, VICTIM_HAND, p->hand))
			return;
		if (++p->hand == p->n_pages) {
			p->hand = 0;
			p->lap++;
			if (b->n)
				return;
		}
	}
}

static int by_number(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return left < right ? -1 : left > right;
}

static void gather_queue(struct pager *p, struct batch *b)
{
	uint32_t pages[BATCH], n = 0, got;
	uint64_t at;

	for (unsigned runs = 0; runs < EXCHANGE_RUNS && n < b->max; runs++) {
		got = queue_take(&p->queue, b->max - n, &at);
		if (!got)
			break;
		for (uint32_t i = 0; i < got; i++)
			pages[n++] = page_of(at) + i;
	}
	qsort(pages, n, sizeof(*pages), by_number);
	for (uint32_t i = 0; i < n; i++)
		if (!offer(p, b, VICTIM_QUEUE, pages[i]))
			return;
}

static void leaves(struct pager *p, uint32_t page, uint32_t frame, bool by_hand)
{
	struct page *at = &p->pages[page];

	if (at->dirty) {
		p->outcome->writes++;
		at->slot = p->next_slot++;
	}
	at->word = word_make(WORD_STANDBY, 0, 0, frame);
	at->by_hand = by_hand;
	at->shadow = p->evictions;
	p->frames.records[frame].address = address_of(page);
	p->frames.records[frame].state = FRAME_STANDBY;
}

/* One command. Returns how many pages have left. */
static uint32_t evict_batch(struct pager *p, uint32_t want)
{
	enum victim_source source = p->policy->source(victims_of(p), &want);
	struct batch b = {0};
	uint32_t first;

	if (source == VICTIM_QUEUE)
		want = (uint32_t)MIN((uint64_t)want, queue_peek(&p->queue, EXCHANGE_RUNS));
	b.max = frames_take(&p->frames, want, reclaim, p, &first);
	for (unsigned i = 0; i < 16 && source == VICTIM_QUEUE && !b.n && b.max; i++)
		gather_queue(p, &b);
	if (!b.n) {
		source = VICTIM_HAND;
		gather_hand(p, &b);
	}
	p->evictions += b.n;
	for (uint32_t i = 0; i < b.max; i++) {
		if (i < b.n)
			leaves(p, b.pages[i], first + i, source == VICTIM_HAND);
		else
			frames_free(&p->frames, first + i);
	}
	p->frames.head = first + b.n;
	p->resident -= b.n;
	p->policy->left(victims_of(p), source, b.n);
	p->outcome->out += b.n;
	p->outcome->out_runs += b.runs;
	p->outcome->us += b.runs * COST_RUN + b.n * COST_OUT;
	return b.n;
}

static void evict(struct pager *p)
{
	if (p->resident <= p->pressure.low + p->pressure.slack)
		return;
	while (p->resident > p->pressure.low) {
		uint64_t excess = p->resident - p->pressure.low;

		if (!evict_batch(p, (uint32_t)MIN(MAX(excess, 32ull), (uint64_t)BATCH)))
			abort(); /* every page can leave here */
	}
}

/* ---- a trace ---- */

static void touch(struct pager *p, uint32_t page, bool write)
{
	struct page *at = &p->pages[page];

	if (!at->resident) {
		/* Below the limit memory is not registered: nobody sees a first touch. */
		if (at->word == WORD_NONE && p->resident < p->pressure.arm) {
			at->resident = true;
			p->resident++;
			p->outcome->fresh++;
		} else if (at->word == WORD_NONE) {
			fill_zero(p, page);
		} else if (word_tag(at->word) == WORD_STANDBY) {
			fill_standby(p, page);
		} else {
			fill_read(p, page);
		}
		evict(p);
	}
	at->dirty = at->dirty || write;
}

static void discard(struct pager *p, uint32_t page)
{
	struct page *at = &p->pages[page];

	if (at->resident)
		p->resident--;
	else if (word_tag(at->word) == WORD_STANDBY)
		frames_free(&p->frames, word_frame(at->word));
	*at = (struct page){0}; /* the queue may still have it */
}

void model_run(const struct model *model, const struct trace *trace, sim_progress *progress,
	       struct outcome *ret)
{
	uint32_t n_frames = model->frames ? model->frames : pressure_frames(model->limit, 1);
	struct frame *records = calloc(n_frames, sizeof(*records));
	struct pager p = {
		.model = model,
		.policy = model->policy,
		.pages = calloc(trace->n_pages, sizeof(*p.pages)),
		.n_pages = trace->n_pages,
		.pressure = pressure_of(model->limit, n_frames + bytes_to_pages(EXCHANGE_FRAMES)),
		.outcome = ret,
	};

	if (!p.pages || !records)
		abort();
	frames_init(&p.frames, records, n_frames);
	*ret = (struct outcome){0};
	for (uint64_t i = 0; i < trace->n; i++) {
		sim_tell(progress, i, trace->n);
		if (i == trace->warm)
			*ret = (struct outcome){0};
		if (trace_is_discard(trace, i))
			discard(&p, trace_page(trace, i));
		else
			touch(&p, trace_page(trace, i), trace_is_write(trace, i));
	}
	ret->touches = trace->n - trace->warm - trace->discards;
	queue_done(&p.queue);
	free(p.pages);
	free(records);
}
