#include "mm/frames.h"

#include <assert.h>

#include "base/util.h"

void frames_init(struct frames *frames, struct frame *records, uint32_t n)
{
	*frames = (struct frames){.records = records, .n = n};
}

static bool available(const struct frame *frame)
{
	return frame->state == FRAME_FREE || frame->state == FRAME_STANDBY;
}

uint32_t frames_take(struct frames *frames, uint32_t want,
		     void (*reclaim)(void *context, uint32_t frame), void *context,
		     uint32_t *ret_first)
{
	uint32_t first = frames->head, n = 0;

	/* Not worth a batch at the end of the ring: begin again at its start. It is those frames' turn all
	 * the same: nothing stays on standby for ever. */
	if (first >= frames->n || frames->n - first < MIN(want, frames->n / 8)) {
		for (; first < frames->n; first++)
			if (frames->records[first].state == FRAME_STANDBY)
				reclaim(context, first);
		first = 0;
	}
	while (n < want && first + n < frames->n && available(&frames->records[first + n])) {
		struct frame *frame = &frames->records[first + n];

		if (frame->state == FRAME_STANDBY)
			reclaim(context, first + n);
		assert(frame->state == FRAME_FREE);
		*frame = (struct frame){.state = FRAME_OUT};
		frames->held++;
		n++;
	}
	if (n) {
		frames->head = first + n;
		frames->peak = MAX(frames->peak, first + n);
	}
	*ret_first = first;
	return n;
}

void frames_free(struct frames *frames, uint32_t frame)
{
	assert(frames->records[frame].state != FRAME_FREE);
	frames->records[frame] = (struct frame){.state = FRAME_FREE};
	frames->held--;
}
