#include "policy/pressure.h"

#include "base/util.h"
#include "proto/exchange.h"

struct pressure pressure_of(uint64_t limit, uint64_t overhead)
{
	struct pressure p = {.limit = limit};
	/* What leaves before it must: room for faults while commands are under way. And what a program
	 * may touch, at some GB/s, before we come to look: 16 MiB at least, where there is that much. */
	uint64_t reserve = MAX(limit / 32, 128ull), margin = MIN(MAX(limit / 8, 4096ull), 16384ull);

	p.high = limit > overhead + reserve ? limit - overhead : reserve;
	p.low = p.high > 2 * reserve ? p.high - reserve : p.high / 2;
	p.slack = (p.high - p.low) / 4;
	p.arm = p.low > 2 * margin ? p.low - margin : p.low / 2;
	return p;
}

uint32_t pressure_frames(uint64_t limit, unsigned n_tasks)
{
	uint64_t share = limit / 16 / MAX(n_tasks, 1u);

	return (uint32_t)MIN(MAX(share, 16ull), 4096ull);
}

uint64_t pressure_interval_ns(const struct pressure *pressure, uint64_t resident)
{
	uint64_t room = pressure->arm > resident ? pressure->arm - resident : 0;

	return MIN(MAX(room * PAGE_SIZE / 8, 1 * MS), 100 * MS);
}
