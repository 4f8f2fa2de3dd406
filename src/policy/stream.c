#include "policy/stream.h"

#include "base/util.h"

/* How far beyond the expected address a fault may lie: pages that were resident in between. */
#define SLACK (16 * PAGE_SIZE)

uint32_t stream_window(struct streams *streams, uint64_t address, uint32_t max,
		       struct stream **ret_stream)
{
	struct stream *oldest = &streams->stream[0];

	streams->clock++;
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *s = &streams->stream[i];

		if (address >= s->next && address - s->next <= SLACK && s->next) {
			s->window = MIN(s->window * 2, max);
			s->used = streams->clock;
			*ret_stream = s;
			return MAX(s->window, 1u);
		}
		if (s->used < oldest->used)
			oldest = s;
	}
	*oldest = (struct stream){
		.next = address + PAGE_SIZE, .window = 1, .used = streams->clock};
	*ret_stream = oldest;
	return 1;
}

void stream_advance(struct stream *stream, uint64_t next)
{
	stream->next = next;
}
