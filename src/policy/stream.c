#include "policy/stream.h"

/* How many pages beyond the expected address a fault may lie: they were resident in between. */
#define SLACK 16u
/* Pages that are not neighbours are read one by one: not too many at once. */
#define SINGLES 32u
#define PAUSE   128u  /* faults without one of its own, after which it begins anew */
#define IDLE    4096u /* faults without one of its own, after which a stream is over */

/* Remembers the fault's block, and says whether faults have lately come in neighbourhoods. */
static bool is_near(struct streams *streams, uint64_t address)
{
	uint64_t block = address / (STREAM_BLOCK * PAGE_SIZE);
	uint64_t *entry = &streams->block[block * 0x9e3779b97f4a7c15ull >> 56];
	uint32_t hit = *entry == block ? 256 : 0;

	*entry = block;
	streams->near = (streams->near * 31 + hit) / 32;
	return streams->near > 64;
}

int64_t stream_steps(const struct stream *s, uint64_t from, uint64_t to, uint32_t most)
{
	int64_t distance = (int64_t)(to - from);

	if (distance % s->step || distance / s->step < 0 || distance / s->step > most)
		return -1;
	return distance / s->step;
}

/* The step of a thread whose last three faults were as far apart, the pages between them aside that
 * were resident; else PAGE_SIZE, which is what most streams begin with. */
static int64_t step_of(struct streams *streams, uint32_t thread, uint64_t address)
{
	__typeof__(&streams->last[0]) last = &streams->last[thread % STREAM_THREADS];
	int64_t before = last->thread == thread ? last->step : 0, step = 0;

	if (last->thread == thread)
		step = (int64_t)(address - last->address);
	last->thread = thread;
	last->address = address;
	last->step = step;
	return step && step == before ? step : PAGE_SIZE;
}

/* The stream that would fault at `address`, or nearest before it. */
static struct stream *find(struct streams *streams, uint64_t address, uint32_t slack)
{
	struct stream *nearest = NULL;

	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *s = &streams->stream[i];
		int64_t steps = s->next ? stream_steps(s, s->next, address, slack) : -1;

		if (steps < 0)
			continue;
		slack = (uint32_t)steps;
		nearest = s;
	}
	return nearest;
}

/* No more than a guess, or long over: it gives way to a new one first. */
static bool is_idle(const struct streams *streams, const struct stream *s)
{
	return s->window <= 1 || streams->clock - s->used > IDLE;
}

static struct stream *replace(struct streams *streams)
{
	struct stream *victim = &streams->stream[0];

	for (unsigned i = 1; i < STREAMS; i++) {
		struct stream *s = &streams->stream[i];
		bool idle = is_idle(streams, s), was = is_idle(streams, victim);

		if (idle > was || (idle == was && s->used < victim->used))
			victim = s;
	}
	return victim;
}

uint32_t stream_window(struct streams *streams, uint32_t thread, uint64_t address, uint32_t max,
		       struct stream **ret_stream)
{
	int64_t step = thread ? step_of(streams, thread, address) : PAGE_SIZE;
	struct stream *s = find(streams, address, step == PAGE_SIZE ? SLACK : 0);

	streams->clock++;
	*ret_stream = s;
	if (s) {
		if (streams->clock - s->used > PAUSE)
			s->window = 1; /* it may well be a coincidence */
		s->used = streams->clock;
		s->window = MIN(s->window * 2, max);
		if (!stream_is_dense(s))
			s->window = MIN(s->window, SINGLES);
		return MAX(s->window, 1u);
	}
	s = replace(streams);
	*s = (struct stream){.next = address + (uint64_t)step,
			     .step = step,
			     .window = 1,
			     .used = streams->clock};
	*ret_stream = s;
	if (step != PAGE_SIZE)
		return s->window = MIN(2u, max);
	return is_near(streams, address) ? MIN(STREAM_BLOCK, max) : 1;
}

void stream_advance(struct stream *stream, uint64_t next)
{
	stream->next = next;
}

void streams_forget(struct streams *streams)
{
	for (unsigned i = 0; i < STREAMS; i++)
		streams->stream[i].next = streams->stream[i].window = 0;
}
