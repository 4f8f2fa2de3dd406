#include "policy/stream.h"

#include <stdbool.h>

#include "base/util.h"

/* How far beyond the expected address a fault may lie: pages that were resident in between. */
#define SLACK (16 * PAGE_SIZE)

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
	return is_near(streams, address) ? MIN(STREAM_BLOCK, max) : 1;
}

void stream_advance(struct stream *stream, uint64_t next)
{
	stream->next = next;
}
