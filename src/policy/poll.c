#include "policy/poll.h"

#include "base/util.h"

#define READ_MAX (100 * 1000ull) /* ns: of slower devices nobody waits in front of the door */
#define FAILURES 6u              /* at most every 2^n-th moment is tried */

void poll_active(struct poll *p, uint64_t now)
{
	if (p->open)
		p->failures = 0;
	else if (p->skip)
		p->skip--;
	p->began = now;
	p->open = p->moment && !p->skip;
}

void poll_read_begins(struct poll *p, uint64_t now)
{
	p->read_at = now;
}

void poll_read_ends(struct poll *p, uint64_t took)
{
	took = MIN(took, 16 * READ_MAX);
	p->read_ns = (p->read_ns * 7 + took) / 8;
}

static bool moment_lasts(struct poll *p, uint64_t now)
{
	if (!p->open || now - p->began < p->moment)
		return p->open;
	p->open = false;
	p->failures = MIN(p->failures + 1, FAILURES);
	p->skip = (1u << p->failures) - 1;
	return false;
}

bool poll_pays(struct poll *p, uint64_t now, bool awaited)
{
	if (awaited && p->read_ns < READ_MAX && now - p->read_at < 2 * p->read_ns)
		return true;
	return moment_lasts(p, now);
}
