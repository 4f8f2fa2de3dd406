#include "mm/state.h"

#include <sys/mman.h>

#include "sys/files.h"

int state_new(int dir_fd, const char *name, struct state **ret)
{
	struct state *state;
	void *memory;
	int r = file_map_new(dir_fd, name, sizeof(*state), &memory);

	if (r < 0)
		return r;
	state = memory;
	/* The journal must never fault a page in while the gate is held. */
	madvise(&state->journal, sizeof(state->journal), MADV_POPULATE_WRITE);
	state->header.magic = STATE_MAGIC;
	state->header.version = STATE_VERSION;
	*ret = state;
	return 0;
}

void state_free(int dir_fd, const char *name, struct state *state)
{
	file_unmap(dir_fd, name, sizeof(*state), state);
}
