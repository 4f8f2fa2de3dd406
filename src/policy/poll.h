/*
 * To poll or to sleep: waking up costs a worker more than looking again, if what it waits for comes
 * soon. So it polls while a read is under way that somebody waits for, as long as reads lately took;
 * and for a moment after each activity, while that lately paid.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct poll {
	uint64_t moment;   /* ns to poll after activity; 0: never */
	uint64_t began;    /* ns: when the last activity ended, and the moment began */
	uint64_t read_at;  /* ns: when the last awaited read began */
	uint64_t read_ns;  /* how long such reads lately took */
	uint32_t failures; /* moments in a row in which nothing came, up to a bound */
	uint32_t skip;     /* moments to sleep through, because of these */
	bool open;         /* the moment is under way */
};

/* Something happened in this pass. */
void poll_active(struct poll *poll, uint64_t now);
/* A read that somebody waits for begins; it has ended, after so many ns. */
void poll_read_begins(struct poll *poll, uint64_t now);
void poll_read_ends(struct poll *poll, uint64_t took);
/* Nothing is to be done now. Look again at once? awaited: such reads are under way. */
bool poll_pays(struct poll *poll, uint64_t now, bool awaited);
